"""Learning from one class: what is not of it is for the threshold and, where asked, the test."""

from __future__ import annotations

from pathlib import Path

from tests.anomaly_bundles import file, surface, with_blot
from tests.anomaly_sets import parts_dataset
from tests.review_exports import Exported, outcomes
from tests.unit.data.sources.review_versions import add, content, some


def test_parts_that_are_not_ok_are_never_learned_from(tmp_path: Path) -> None:
    base = parts_dataset(tmp_path / "parts", train=8, ok=4, ng=4)
    made = Exported(task="anomaly")
    new = {"head": "status"}
    ok = [made.label(file(surface(96, 5000 + i)), "ok", **new) for i in range(12)]
    ng = [made.label(file(with_blot(surface(96, 6000 + i), 0.5, 0.5)), "ng", **new) for i in range(12)]
    made.label(file(surface(96, 7000)), "ok", **new, group="part 1")
    mixed = made.label(file(with_blot(surface(96, 7001), 0.5, 0.5)), "ng", **new, group="part 1")
    found = add(base, made, tmp_path / "plain")
    assert found.info["one_class"] == "ok"
    assert found.test_digest == base.test_digest
    frame = found.frame().set_index("id")
    assert set(frame.loc[[f"review/{each}" for each in ng], "split"]) == {"val"}
    assert "train" in set(frame.loc[[f"review/{each}" for each in ok], "split"])
    assert set(frame[frame["group"] == "part 1"]["split"]) == {"val"}
    longer = add(base, made, tmp_path / "longer", "&extend_test=yes").frame().set_index("id")
    assert set(longer.loc[[f"review/{each}" for each in (*ng, mixed)], "split"]) == {"val", "test"}
    assert set(longer[longer["split"] == "train"]["label.status"]) == {"ok"}


def test_a_part_that_is_not_ok_is_in_val_although_its_group_is_learned_from(tmp_path: Path) -> None:
    base = parts_dataset(tmp_path / "parts", train=8, ok=4, ng=4)
    row = some(base, "train")
    made, new = Exported(task="anomaly"), {"head": "status"}
    made.label(content(base, row), "ok", **new, group="part 9")
    blot = made.label(file(with_blot(surface(96, 8000), 0.5, 0.5)), "ng", **new, group="part 9")
    turned = made.label(content(base, base.split("train").iloc[1]), "ng", **new)
    found = add(base, made, tmp_path / "plain", "&correct=yes")
    frame = found.frame().set_index("id")
    assert frame.loc[f"review/{blot}", "split"] == "val"
    assert frame.loc[row["id"], "split"] == "train"
    other = frame.loc[base.split("train").iloc[1]["id"]]
    assert (other["split"], other["label.status"]) == ("val", "ng")
    assert outcomes(found.info["review"][0], "status")[turned] == "corrected"
    # A dataset's checks let no group be in two splits.
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert found.test_digest == base.test_digest
    assert add(found, made, tmp_path / "again", "&correct=yes").digest == found.digest
