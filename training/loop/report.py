"""What labels come to, before anything is trained: counts, what was left as it is, and how readers agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.files import write_json, write_text
from data.sources.review_rules import OUTCOMES
from serving.core.agreement import pairs

if TYPE_CHECKING:
    from data.dataset import Dataset
    from data.sources.review_export import Export
    from data.sources.review_plan import Plan
    from training.spec.parts import HeadSpec

FORMAT = 1
_SHOWN = 20
_CHANGES = ("added", "completed", "corrected", "changed", "unlabelled", "withdrawn")


def review_report(export: Export, plan: Plan, base: Dataset, heads: Sequence[HeadSpec]) -> dict[str, Any]:
    """The report as plain JSON values; ``attention`` lists the labels that a person should look at."""
    agreement = {
        head.name: [
            pair.to_dict()
            for pair in pairs(
                (
                    (label.sha256, label.reader, label.value)
                    for label in sorted(export.labels, key=lambda each: each.line)
                    if label.head == head.name and not label.adjudicated
                ),
                head.classes,
                ordinal=head.ordinal,
            )
        ]
        for head in heads
    }
    return {
        "format": FORMAT,
        "task": export.task,
        "export": {
            "digest": export.digest,
            "made_at": export.made_at,
            "tenant": export.tenant,
            "labels": len(export.labels),
            "readers": list(export.readers),
        },
        "base": {"digest": base.digest, "test_digest": base.test_digest, "images": base.info["images"]},
        "counts": plan.counts(),
        "test_changes": plan.test_changes,
        "erased_elsewhere": plan.elsewhere,
        "agreement": agreement,
        "attention": list(_attention(plan)),
    }


def changes(report: Mapping[str, Any]) -> int:
    """How many labels the new version has more, or other, than the base."""
    outcomes = report["counts"]["outcomes"]
    return sum(outcomes.get(name, 0) for name in _CHANGES)


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """``report.json``, and ``report.md`` to be read."""
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", "\n".join(lines(report)) + "\n")


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for a person."""
    export, base, counts = report["export"], report["base"], report["counts"]
    yield f"# Labels for {report['task']}"
    yield ""
    yield (
        f"{export['labels']} labels by {', '.join(export['readers']) or 'nobody'} "
        f"({export['tenant']}, {export['made_at']}), on {base['images']} images of {base['digest'][:19]}."
    )
    yield ""
    for name, count in counts["outcomes"].items():
        yield f"- {count} {name.replace('_', ' ')}: {OUTCOMES[name]}"
    new = ", ".join(f"{count} {split}" for split, count in counts["new"].items() if count)
    yield f"- new images: {new or 'none'}"
    if gone := {split: count for split, count in counts["erased"].items() if count}:
        yield f"- erased, and taken out of the base: {', '.join(f'{n} {split}' for split, n in gone.items())}"
    if elsewhere := report.get("erased_elsewhere"):
        yield (
            f"- {len(elsewhere)} image(s) of the base have a content that was erased, and stay, since they "
            f"didn't come from review: {', '.join(elsewhere[:_SHOWN])}"
        )
    if report["test_changes"]:
        yield "- **the test part changes: a new comparison line begins, where the floors decide**"
    for head, found in report["agreement"].items():
        for pair in found:
            yield f"- {head}: {agreement_line(pair)}"
    if report["attention"]:
        yield ""
        yield "## To look at"
        yield ""
        for entry in report["attention"][:_SHOWN]:
            yield f"- {entry}"
        if len(report["attention"]) > _SHOWN:
            yield f"- and {len(report['attention']) - _SHOWN} more, in report.json"


def agreement_line(pair: Mapping[str, Any]) -> str:
    """Two readers' agreement in words."""
    one, other = pair["readers"]
    told = f"{one} and {other} agree on {pair['agreed']} of {pair['images']} images"
    if pair["kappa"] is None:
        return f"{told}; kappa is not defined, as both always said the same class"
    graded = pair["quadratic_kappa"]
    return f"{told}, kappa {pair['kappa']:.2f}" + (f" (quadratic {graded:.2f})" if graded is not None else "")


def _attention(plan: Plan) -> Iterator[str]:
    """Each label that wasn't taken, or took another's place."""
    for case in plan.cases:
        named = (case["cases"] or case["images"] or case["sha256"])[0]
        for head, told in case["labels"].items():
            outcome = told["outcome"]
            nobody = not told["readers"] and "decided_by" not in told
            if outcome == "withdrawn" or (outcome == "frozen" and nobody):
                yield f"{named} ({head}): {outcome}, its label was taken back, the base has {told['was']}"
            elif outcome in ("changed", "corrected", "differs", "frozen", "unlabelled"):
                says, was = told["value"] or "cannot grade", told.get("was") or "nothing"
                yield f"{named} ({head}): {outcome}, readers say {says}, the base {was}"
            elif outcome == "conflict":
                said = ", ".join(f"{who} {what or 'cannot grade'}" for who, what in told["readers"].items())
                yield f"{named} ({head}): readers disagree ({said})"
            elif outcome == "held_back":
                yield f"{named} ({head}): held back, its group is in the test part"
