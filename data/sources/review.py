"""A dataset and what readers said since: the next version of it, for the loop of review and retraining."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from data.dataset import LABEL, META, ORIGINAL, Dataset, Head
from data.errors import DatasetError, ImageError, SourceError
from data.files import sha256_bytes
from data.image import STORED_LIMITS, read_header
from data.metadata import strip
from data.progress import track
from data.sources.base import SKIN_OPTION, Licence, Options, Sample, Source, fail, stated_skin
from data.sources.canonical import Canonical
from data.sources.folders import stated_licence
from data.sources.review_export import Export, read_export
from data.sources.review_plan import Plan, make_plan
from data.sources.review_rows import BaseRow
from data.sources.review_rules import Rules
from data.sources.tables import reader
from data.tone import Place

#: What the manifest's ``source`` says of images that came from review.
NAME = "review"


class Review(Source):
    """``review:EXPORT?base=DATASET``: the rows of a canonical dataset and an export's new images and labels.

    Splits, groups, licences and further columns of the base are kept. The test part is frozen unless
    ``extend_test=yes``. What became of each label goes into ``dataset.json`` as ``review``, after what is
    there of earlier versions. See :mod:`data.sources.review_plan` for the rules.
    """

    kind = "review"
    title = "A canonical dataset and the labels that readers gave since (the gateway's export)"
    layout = "export.json, labels.jsonl, excluded.txt and images/<sha256>.<ext>"
    options: ClassVar[Mapping[str, str]] = {
        "base": "the canonical dataset that the labels are added to (needed)",
        "correct": "yes: readers' labels take the place of the base's (default no: they are listed)",
        "extend_test": "yes: the test part grows, and a new comparison line begins (default no)",
        "conflicts": "error (default) or leave: images whose readers disagree, where nobody decided",
        "licence": "of the new images (default: not stated)",
        "forbids": "uses that it forbids, such as commercial",
        "skin": SKIN_OPTION + "; by default as in the base",
    }
    licence = Licence("the base's, and what ?licence= states")

    def prepare(self) -> None:
        """The export must be one, and the base a canonical dataset."""
        place = self.given.text("base")
        if not place:
            raise SourceError(
                "Labels from review need the dataset that they are added to.",
                hint=f"Write review:{self.path}?base=DATASET, a folder made by `retiderm data ingest`.",
            )
        self._base = Canonical(Path(place).expanduser(), Options({}))
        self._correct = self._yes("correct")
        self._extend = self._yes("extend_test")
        self._leave = self.given.choice("conflicts", ("error", "leave"), "error") == "leave"
        self.profile, self.synthetic = self._base.profile, self._base.synthetic
        self.one_class = self._base.one_class
        self._own = stated_licence(self)
        base = self._base.licence
        names = [base.name, *([self._own.name] if self.given.text("licence") else [])]
        self.licence = Licence(
            "; ".join(dict.fromkeys(names)),
            self.dataset.info.get("licence_url"),
            tuple(sorted({*base.forbids, *self._own.forbids})),
        )
        self.skin = stated_skin(self.given) if self.given.text("skin") else self._skin()
        self._plan: Plan | None = None
        self._export: Export | None = None
        read_export(self.path, images=False)

    @property
    def dataset(self) -> Dataset:
        """The base."""
        return self._base.dataset

    @property
    def name(self) -> str:
        """The base's source, and that readers added to it."""
        base = self._base.name
        return base if base.endswith(f"+{NAME}") else f"{base}+{NAME}"

    def samples(self, heads: Sequence[Head]) -> Iterator[Sample]:
        """The base's rows as the plan leaves them, then the new images."""
        export, plan = self.plan(heads)
        rows = {str(row["id"]): row for row in self.dataset.frame().to_dict("records")}
        for sample in self._base.samples(heads):
            if sample.id in plan.dropped:
                continue
            row = rows[sample.id]
            split, group = plan.moved.get(sample.id, (sample.split, sample.group))
            yield dataclasses.replace(
                sample,
                labels={**sample.labels, **plan.changes.get(sample.id, {})},
                split=split,
                group=group,
                source=str(row["source"]),
                licence=str(row["licence"]),
            )
        for new in plan.new:
            yield Sample(
                new.id,
                reader(export.root / new.file),
                new.labels,
                new.group,
                new.split,
                source=NAME,
                licence=self._own.name,
            )

    def plan(self, heads: Sequence[Head]) -> tuple[Export, Plan]:
        """The checked export, and what becomes of its labels; worked out once.

        Raises:
            SourceError: the export is faulty or for another task, readers disagree, or the base doesn't fit.
        """
        if self._plan is None or self._export is None:
            export = read_export(self.path, task=self.dataset.task, heads=heads)
            normal = str(self.dataset.info["one_class"]) if self.one_class else None
            rules = Rules(self._correct, self._extend, normal)
            plan = make_plan(base_rows(self.dataset, heads), export, contents_of(export), rules)
            if (torn := _torn(export, plan)) and not self._leave:
                raise fail(
                    f"Readers disagree on {len(torn)} image(s), and nobody decided",
                    torn,
                    hint="Decide them on the review page, or leave them out: conflicts=leave "
                    "(--leave-conflicts).",
                )
            self._export, self._plan = export, plan
        return self._export, self._plan

    def record(self, info: Mapping[str, Any], heads: Sequence[Head]) -> dict[str, Any]:
        """``review``: of each version its export, base, rules and cases; refuses a test part that moved."""
        export, plan = self.plan(heads)
        if not plan.test_changes and info["test_digest"] != self.dataset.test_digest:
            raise DatasetError(
                "The test part would change, and nobody asked for that.",
                hint="Don't give another split or a limit to labels from review; to extend the test part: "
                "extend_test=yes.",
            )
        earlier = self.dataset.info.get("review", [])
        # Another tenant's label of the same image is named too: only one's own rows are followed.
        named = {
            sha256
            for version in earlier
            if version["export"]["tenant"] == export.tenant
            for case in version["cases"]
            for sha256 in case["sha256"]
        }
        told = [
            case
            for case in plan.cases
            if any(label["outcome"] != "same" for label in case["labels"].values())
            or named.isdisjoint(case["sha256"])
        ]
        times = sorted(label["at"] for case in plan.cases for label in case["labels"].values())
        version = {
            "export": {
                "digest": export.digest,
                "made_at": export.made_at,
                "tenant": export.tenant,
                "labels": len(export.labels),
            },
            "base": {
                "digest": self.dataset.digest,
                "test_digest": self.dataset.test_digest,
                "source": self._base.name,
            },
            "rules": Rules(self._correct, self._extend).to_dict(),
            "test_changed": info["test_digest"] != self.dataset.test_digest,
            "readers": list(export.readers),
            "from": times[0] if times else None,
            "to": times[-1] if times else None,
            "counts": plan.counts(),
            "cases": told,
        }
        return {"review": [*(_without(each, export.excluded) for each in earlier), version]}

    def _yes(self, option: str) -> bool:
        return self.given.choice(option, ("yes", "no"), "no") == "yes"

    def _skin(self) -> Place:
        """Where new images' skin is: as in the base, or as its kind of source has it."""
        from data.sources.registry import KINDS

        said = self.dataset.info.get("skin")
        if said is None and META + "ita" in self.dataset.frame().columns:
            kind = self._base.name.partition("+")[0]
            said = KINDS[kind].skin if kind in KINDS else None
        return "centre" if said == "centre" else "around" if said == "around" else "none"


def base_rows(dataset: Dataset, heads: Sequence[Head]) -> list[BaseRow]:
    """A dataset's rows as the plan needs them. :class:`SourceError` where no labels can be added to it."""
    frame = dataset.frame()
    lacking = [head.name for head in heads if LABEL + head.name not in frame.columns]
    if lacking:
        raise SourceError(
            f"{dataset.root} has no head {', '.join(lacking)}.", hint="Give a base of this task."
        )
    if not (frame["split"] == "test").any():
        raise SourceError(
            f"{dataset.root} has no test images, so no model of it can be compared with another.",
            hint="Give a base with a test part: `retiderm data ingest` cuts one.",
        )
    cases: dict[str, set[str]] = defaultdict(set)
    sent: dict[str, set[str]] = defaultdict(set)
    tenants: dict[str, set[str]] = defaultdict(set)
    for version in dataset.info.get("review", []):
        for case in version["cases"]:
            cases[case["row"]].update(case["cases"])
            sent[case["row"]].update(case["sha256"])
            tenants[case["row"]].add(version["export"]["tenant"])
    return [
        BaseRow(
            id=str(row["id"]),
            sha256=str(row["sha256"]),
            original=row[ORIGINAL] if isinstance(row.get(ORIGINAL), str) else "",
            split=str(row["split"]),
            group=str(row["group"]),
            labels={head.name: _text(row[LABEL + head.name]) for head in heads},
            cases=tuple(sorted(cases[str(row["id"])])),
            sent=tuple(sorted(sent[str(row["id"])])),
            tenants=frozenset(tenants[str(row["id"])]),
        )
        for row in frame.to_dict("records")
    ]


def contents_of(export: Export) -> dict[str, str]:
    """For each file sent, the SHA-256 of its bytes as a dataset stores them: without metadata."""
    files = {label.sha256: label.file for label in export.labels}
    found, wrong = {}, []
    for sha256, name in track(files.items(), "Reading labelled images", len(files)):
        try:
            data = (export.root / name).read_bytes()
            read_header(data, STORED_LIMITS)
            found[sha256] = sha256_bytes(strip(data, STORED_LIMITS))
        except ImageError as error:
            wrong.append(f"{name}: {error.message}")
    if wrong:
        raise fail(f"{len(wrong)} labelled image(s) can't be read", wrong)
    return found


def _torn(export: Export, plan: Plan) -> list[str]:
    """Where readers disagree undecided: the image, the head, and each label with its line."""
    found = []
    for case in plan.cases:
        for head in (name for name, told in case["labels"].items() if told["outcome"] == "conflict"):
            said = ", ".join(
                f"{label.reader}: {label.value or 'cannot grade'}, line {label.line}"
                for label in export.labels
                if label.head == head and label.sha256 in case["sha256"]
            )
            found.append(f"{case['sha256'][0]} {head} ({said})")
    return found


def _without(version: Mapping[str, Any], excluded: frozenset[str]) -> dict[str, Any]:
    """An earlier version's entry without the cases that were erased since."""
    kept = [case for case in version["cases"] if excluded.isdisjoint(case["sha256"])]
    return {**version, "cases": kept}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
