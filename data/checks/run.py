"""The check itself: facts, rules, findings."""

from __future__ import annotations

from data.checks.facts import Facts, gather
from data.checks.report import CheckReport, Finding
from data.checks.rules import Broken, evaluate
from data.dataset import Dataset


def check(dataset: Dataset, *, files: bool = True) -> CheckReport:
    """Check a dataset. Raises nothing for bad data: the report says what is wrong; see ``require``.

    ``files`` reads every image again and compares its digest.
    """
    facts = gather(dataset, files=files)
    outcome = evaluate(dataset, facts, files=files)
    findings = [_finding(broken, facts) for broken in outcome.broken]
    failures = tuple(each for each in findings if each.severity == "failure")
    return CheckReport(
        dataset,
        outcome.checked,
        failures,
        tuple(each for each in findings if each.severity == "warning"),
        outcome.gx,
    )


def _finding(broken: Broken, facts: Facts) -> Finding:
    if broken.check == "decodable":
        left_out = tuple(f"{row.id}: {row.reason}" for row in facts.rejected.itertuples())
        return Finding(broken.check, broken.severity, broken.message, len(left_out), left_out)
    if broken.check == "class_counts":
        return Finding(broken.check, broken.severity, broken.message, broken.count, broken.ids)
    told = facts.told.get(broken.check, {})
    rows = []
    for name, value in zip(broken.ids, broken.values, strict=True):
        shown = f"{value:.3g}" if isinstance(value, float) else repr(value)
        rows.append(told.get(name) or f"{name}: {broken.column.lstrip('_')} = {shown}")
    partner = facts.partner.get(broken.check, {})
    images = tuple((name, partner[name]) if name in partner else (name,) for name in broken.ids)
    return Finding(broken.check, broken.severity, broken.message, broken.count, tuple(rows), _once(images))


def _once(pairs: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """Each pair once, whichever of its two comes first."""
    seen: set[frozenset[str]] = set()
    kept = []
    for pair in pairs:
        if (key := frozenset(pair)) not in seen:
            seen.add(key)
            kept.append(pair)
    return tuple(kept)
