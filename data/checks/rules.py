"""The rules, as Great Expectations' expectations: what must hold (failure) and what should (warning).

Each expectation carries in its ``meta`` the rule's code and the sentence that a failure says. Importing Great
Expectations takes seconds, so everything here is made inside functions.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.dataset import COLUMNS, LABEL, SPLITS, Dataset

if TYPE_CHECKING:
    import pandas as pd

    from data.checks.facts import Facts
    from data.checks.report import Severity

#: When more than this share of the images is outside a range, it isn't single bad images but a wrong profile
#: or a broken export, and the check fails.
BROKEN_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Broken:
    """One expectation that did not hold; ``ids`` are the rows, ``column`` and ``values`` what they had."""

    check: str
    severity: Severity
    message: str
    count: int
    ids: tuple[str, ...]
    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What broke, which rules were tried, Great Expectations' result, and its own page."""

    broken: tuple[Broken, ...]
    checked: tuple[str, ...]
    gx: dict[str, Any]


def evaluate(dataset: Dataset, facts: Facts, *, files: bool) -> Outcome:
    """Hold every rule against the facts."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    gx: Any = _import("great_expectations")

    types = _import("great_expectations.data_context.types.base")
    # In memory only: its default also makes a folder for pages that we don't publish, and leaves it behind.
    stores = types.InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    context = gx.get_context(
        mode="ephemeral", project_config=types.DataContextConfig(store_backend_defaults=stores)
    )
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("dataset")
    broken: list[Broken] = []
    checked: list[str] = []
    results: dict[str, Any] = {}
    suites: Mapping[str, tuple[pd.DataFrame, list[Any]]] = {
        "images": (facts.rows, _images(dataset, facts, files=files)),
        "classes": (_expected(dataset, facts.counts), _classes(facts)),
        "rejected": (facts.rejected, _rejected()),
    }
    for name, (frame, expectations) in suites.items():
        definition = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        batch = definition.get_batch(batch_parameters={"dataframe": frame})
        suite = gx.ExpectationSuite(name=name, expectations=expectations)
        form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"]}
        if "id" not in frame.columns:
            form.pop("unexpected_index_column_names")
        result = batch.validate(suite, result_format=form).to_json_dict()
        results[name] = _trimmed(result)
        for each in result["results"]:
            meta = each["expectation_config"]["meta"]
            checked.append(meta["check"])
            if not each["success"]:
                broken.append(_broken(each, meta))
    return Outcome(tuple(broken), tuple(dict.fromkeys(checked)), results)


def _images(dataset: Dataset, facts: Facts, *, files: bool) -> list[Any]:
    gxe = _expectations()
    labels = [LABEL + head.name for head in dataset.heads]
    expectations = [
        gxe.ExpectColumnToExist(column=name, meta=_meta("schema", f"The manifest has no column {name}."))
        for name in (*COLUMNS, *labels)
    ]
    if not set(COLUMNS) | set(labels) <= set(facts.rows.columns):
        return expectations

    def never(column: str, check: str, message: str, *, severity: str = "critical") -> None:
        """A true/false column must be false."""
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column=column, value_set=[False], severity=severity, meta=_meta(check, message)
            )
        )

    expectations += [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta=_meta("schema", "The dataset has no images.")),
        gxe.ExpectColumnValuesToBeUnique(column="id", meta=_meta("schema", "Ids come twice.")),
        gxe.ExpectColumnValuesToMatchRegex(
            column="sha256", regex="^[0-9a-f]{64}$", meta=_meta("schema", "Digests are malformed.")
        ),
        *(
            gxe.ExpectColumnValuesToNotBeNull(column=name, meta=_meta("schema", f"Column {name} has gaps."))
            for name in COLUMNS
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="split", value_set=list(SPLITS), meta=_meta("schema", "Splits have unknown names.")
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="_labels", min_value=1, meta=_meta("label_domain", "Images have no label in any head.")
        ),
        *(
            gxe.ExpectColumnValuesToBeInSet(
                column=LABEL + head.name,
                value_set=list(head.classes),
                meta=_meta("label_domain", f"Labels of {head.name} are none of its classes."),
            )
            for head in dataset.heads
        ),
    ]
    never("_duplicate_across_splits", "duplicates_across_splits", "The same image is in two splits.")
    never("_group_across_splits", "groups_across_splits", "A group (patient, lesion) is in two splits.")
    never("_duplicate", "duplicates", "The same image comes twice in one split.", severity="warning")
    never("_conflicting_labels", "conflicting_labels", "The same image has two labels.", severity="warning")
    never("_near_across_splits", "near_duplicates", "Images in two splits look alike.", severity="warning")
    if files:
        expectations.append(
            gxe.ExpectColumnValuesToBeInSet(
                column="_intact",
                value_set=[True],
                meta=_meta("files", "Stored images are missing or altered."),
            )
        )
    return expectations + _measures(dataset)


def _measures(dataset: Dataset) -> list[Any]:
    """Size, sharpness and exposure against the dataset's own quality profile."""
    gxe = _expectations()
    from data.quality import QualityProfile

    profile = QualityProfile.from_dict(dataset.info.get("quality") or {"name": "none", "min_side": 1})
    expectations: list[Any] = [
        gxe.ExpectColumnValuesToBeBetween(
            column="_short_side",
            min_value=profile.min_side,
            meta=_meta(
                "size", f"Images have a side under {profile.min_side} px, the least of {profile.name}."
            ),
        )
    ]
    ranges: tuple[tuple[str, str, float, float | None], ...] = (
        ("sharpness", "Images are less sharp than the profile asks.", profile.min_sharpness, None),
        ("exposure", "Images are too dark or too bright.", profile.min_exposure, profile.max_exposure),
    )
    for column, message, least, most in ranges:
        for severity, share, words in (
            ("warning", 1.0, message),
            ("critical", BROKEN_SHARE, f"{message} It is most of them: a wrong profile or a broken export?"),
        ):
            expectations.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=column,
                    min_value=least,
                    max_value=most,
                    mostly=share,
                    severity=severity,
                    meta=_meta(column, words),
                )
            )
    return expectations


def _classes(facts: Facts) -> list[Any]:
    """A class needs images at all, and in train where there is a train; elsewhere it should have some."""
    gxe = _expectations()
    column = _import("great_expectations.expectations.row_conditions").Column
    counts = facts.counts
    filled = {split for split in SPLITS if counts[counts["split"] == split]["images"].sum() > 0}
    expectations = []
    for split, severity, message in (
        ("any split", "critical", "Classes have no image at all."),
        ("train", "critical", "Classes have no image to train on."),
        ("val", "warning", "Classes have no image to validate on."),
        ("test", "warning", "Classes have no image to test on."),
    ):
        if split == "train" and split not in filled:
            continue  # a set for testing only
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="images",
                min_value=1,
                row_condition=column("split") == split,
                severity=severity,
                meta=_meta("class_counts", message),
            )
        )
    return expectations


def _expected(dataset: Dataset, counts: pd.DataFrame) -> pd.DataFrame:
    """The counts that the rules are about: of learning from one class, the others are for the test alone."""
    normal = dataset.info.get("one_class")
    if normal is None:
        return counts
    told: pd.DataFrame = counts[(counts["class"] == normal) | (counts["split"] == "test")]
    return told


def _rejected() -> list[Any]:
    gxe = _expectations()
    return [
        gxe.ExpectTableRowCountToEqual(
            value=0, meta=_meta("decodable", "Images can't be decoded and were left out.")
        )
    ]


def _expectations() -> Any:
    """Great Expectations' expectations, imported when needed."""
    return _import("great_expectations.expectations")


def _import(name: str) -> Any:
    """Import a module without the warnings of what it imports in turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _meta(check: str, message: str) -> dict[str, str]:
    return {"check": check, "message": message}


def _broken(result: Mapping[str, Any], meta: Mapping[str, str]) -> Broken:
    config, found = result["expectation_config"], result["result"]
    column = str(config["kwargs"].get("column", ""))
    if (result.get("exception_info") or {}).get("raised_exception"):
        raise RuntimeError(f"Great Expectations failed on {config}: {result['exception_info']}")
    at = found.get("unexpected_index_list") or []
    return Broken(
        meta["check"],
        "warning" if config.get("severity") == "warning" else "failure",
        meta["message"],
        int(found.get("unexpected_count", len(at) or 1)),
        tuple(str(each["id"]) for each in at if isinstance(each, dict)),
        column,
        tuple(each.get(column) for each in at if isinstance(each, dict)),
    )


def _trimmed(result: dict[str, Any]) -> dict[str, Any]:
    """The result without the same rows three times over; the index list keeps them all."""
    for each in result["results"]:
        for name in (
            "partial_unexpected_list",
            "partial_unexpected_counts",
            "partial_unexpected_index_list",
            "unexpected_list",
        ):
            each["result"].pop(name, None)
    return result
