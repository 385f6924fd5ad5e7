"""Windows follow each other and share no image; an alarm stands until a newer whole window is without one."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event, insert, select, text

from serving.core.bundle import Bundle
from serving.core.drift import Settings
from serving.features.columns import Features as Looks
from serving.gateway.blobs import keep
from serving.gateway.blobs.folder import FolderBlobs
from serving.gateway.loop.drift import Cut, Watch
from serving.gateway.store import Store
from serving.gateway.store.repositories import windows
from serving.gateway.store.tables import DriftWindow, Glance, Prediction
from serving.gateway.store.types import new_id
from tests.drift_answers import TASK, answer, origin_of, read
from tests.drift_windows import HEAD, window
from tests.gateway_rows import image_of, tenant_of
from tests.gateway_servers import new_database

FAST = Settings(draws=1000)


@pytest.fixture
def clinic(sqlite_store: Store) -> str:
    return tenant_of(sqlite_store, "clinic")


@pytest.fixture
def watch(sqlite_store: Store, root: Path) -> Watch:
    return Watch(sqlite_store, root, FAST)


def severities(watch: Watch, clinic: str) -> tuple[str | None, str, str]:
    """Of the newest whole window, of the running one, and of what stands."""
    found = watch.standing(clinic, TASK)
    whole = found.images.whole
    return None if whole is None else whole.severity, found.images.running.severity, found.report.severity


def test_whole_windows_are_cut_where_the_last_one_ended() -> None:
    assert Cut.of([], 3) == Cut(None, (1, 0))
    assert Cut.of([5, 6], 3) == Cut(None, (5, 6))
    assert Cut.of([5, 6, 7], 3) == Cut((5, 7), (1, 0))
    assert Cut.of([1, 2, 3, 5, 6, 7, 9], 3) == Cut((5, 7), (9, 9))


def test_windows_follow_each_other(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    assert severities(watch, clinic) == (None, "waiting", "waiting")
    bounds = []
    for images, (whole, running) in ((130, (0, 130)), (80, (200, 10)), (230, (200, 40)), (600, (200, 40))):
        answer(sqlite_store, blobs, clinic, bundle, window(images, images))
        found = watch.standing(clinic, TASK)
        assert (found.images.whole.images if found.images.whole else 0) == whole
        assert found.images.running.images == running
        with sqlite_store.read(clinic) as scope:
            kept = windows.find(scope, bundle.digest, "images")
            if kept is not None:
                bounds.append((kept.first_number, kept.last_number))
    assert all(one[1] < other[0] for one, other in itertools.pairwise(bounds))
    assert len(bounds) == 3
    given, info = watch.window(clinic, TASK)
    assert (given.images, info.source, info.version) == (200, "gateway", "4")
    assert watch.window(clinic, TASK, "running")[0].images == 40
    assert not given.truth


def test_an_alarm_stands_until_a_newer_whole_window_is_without_one(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, root: Path, watch: Watch
) -> None:
    answer(sqlite_store, blobs, clinic, bundle, window(210, 100))
    assert severities(watch, clinic) == ("ok", "waiting", "ok")
    answer(sqlite_store, blobs, clinic, bundle, window(50, 2, moved=3.0))
    # At its first look, among the first fifty: it needs not be whole.
    assert severities(watch, clinic) == ("ok", "critical", "critical")
    answer(sqlite_store, blobs, clinic, bundle, window(145, 101))
    assert severities(watch, clinic) == ("critical", "waiting", "critical")
    answer(sqlite_store, blobs, clinic, bundle, window(150, 102))
    # The newer one is fine so far, but it isn't whole. After a restart it is the same.
    for each in (watch, Watch(sqlite_store, root, FAST)):
        assert severities(each, clinic) == ("critical", "ok", "critical")
    answer(sqlite_store, blobs, clinic, bundle, window(60, 103))
    assert severities(watch, clinic) == ("ok", "waiting", "ok")


def test_what_was_erased_takes_no_alarm_with_it(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    answer(sqlite_store, blobs, clinic, bundle, window(60, 2, moved=3.0))
    assert severities(watch, clinic) == (None, "critical", "critical")
    with sqlite_store.write(clinic, "test") as scope:
        scope.session.execute(text("DELETE FROM features"))
        scope.session.execute(text("DELETE FROM predictions"))
    assert severities(watch, clinic) == (None, "critical", "critical")


def test_another_gateway_of_the_store_sees_the_same(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, root: Path, watch: Watch
) -> None:
    other = Watch(sqlite_store, root, FAST)
    for seed in range(3):
        answer(sqlite_store, blobs, clinic, bundle, window(150, seed, moved=3.0 * (seed == 1)))
        one, two = watch.standing(clinic, TASK), other.standing(clinic, TASK)
        assert one == two
    with sqlite_store.write(clinic, "test") as scope:
        # One that comes too late changes nothing.
        assert not windows.keep(
            scope, task=TASK, digest=bundle.digest, kind="images", before=7, first=8, last=9,
            report=None, running=None,
        )  # fmt: skip
    assert watch.standing(clinic, TASK) == one


def test_refused_photographs_are_in_the_window_and_go_with_it(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    answer(sqlite_store, blobs, clinic, bundle, window(120, 5, refused=0.4))
    found = watch.standing(clinic, TASK).report
    (refused,) = (one for one in found.findings if one.measure == "refused")
    assert refused.alarm
    given, _ = watch.window(clinic, TASK)
    assert given.gradable is not None
    assert given.embedding is not None
    assert given.sharpness is not None
    assert 0.2 < (~given.gradable).mean() < 0.6
    assert np.isnan(given.embedding[~given.gradable]).all()
    assert not np.isnan(given.sharpness).any()
    answer(sqlite_store, blobs, clinic, bundle, window(400, 6, refused=0.1))
    watch.standing(clinic, TASK)
    with sqlite_store.read(clinic) as scope:
        kept = windows.find(scope, bundle.digest, "images")
        assert kept is not None
        oldest = min(scope.session.scalars(select(Glance.number)))
        assert oldest >= kept.first_number


def test_glances_that_nobody_judges_do_not_pile_up(
    sqlite_store: Store, bundle: Bundle, clinic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MOST_GLANCES", 20)
    monkeypatch.setattr(windows, "_TIDIED", 1)
    with sqlite_store.write(clinic, "test") as scope:
        for _ in range(60):
            windows.glance(scope, origin_of(bundle), "retake", Looks(sharpness=0.1))
        assert len(windows.numbers(scope, bundle.digest)) == 20


@pytest.mark.slow  # a hundred thousand rows first
def test_few_rows_are_read_of_a_hundred_thousand_answers(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    answers = 100_000
    rng = np.random.default_rng(1)
    with sqlite_store.write(clinic, "test") as scope:
        image = image_of(scope, keep(blobs, clinic, b"a photograph", "image/png"))
        origin = dataclasses.asdict(origin_of(bundle))
        told = [
            {"heads": {HEAD.name: {"probabilities": dict(zip(HEAD.classes, map(float, row), strict=True))}}}
            for row in rng.dirichlet((6, 3, 1), 500)
        ]
        made = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        scope.session.execute(insert(Prediction), [
            {
                **origin, "tenant_id": clinic, "id": new_id(), "created_at": made, "number": at + 1,
                "image_id": image.id, "verdict": "gradable", "reasons": [], "quality": {},
                "answer": told[at % 500], "uncertain": False,
            }
            for at in range(answers)
        ])  # fmt: skip
    count, plans = 0, []

    def counted(context: object) -> None:
        nonlocal count
        count += 1

    @event.listens_for(sqlite_store.engine, "before_cursor_execute")
    def planned(connection, cursor, statement, parameters, context, executemany):  # type: ignore[no-untyped-def]
        if statement.startswith("SELECT") and "FROM predictions" in statement:
            raw = cursor.connection.cursor()
            raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in raw.fetchall())

    # What comes out of the database, row by row, whatever asks for it.
    event.listen(DriftWindow, "load", lambda *_: counted(None))
    event.listen(Prediction, "load", lambda *_: counted(None))
    before = windows.numbers

    def numbers(*given, **more):  # type: ignore[no-untyped-def]
        nonlocal count
        found = before(*given, **more)
        count += len(found)
        return found

    windows.numbers = numbers
    try:
        watch.standing(clinic, TASK)
        first, count = count, 0
        watch.standing(clinic, TASK)
        again, count = count, 0
        watch.answered(clinic, TASK)
    finally:
        windows.numbers = before
    # Five windows' numbers, one window; then nothing but where the last one ended; then one.
    assert first <= 1000 + 200 + 2
    assert again <= 2
    assert count == 1
    assert plans
    assert not [plan for plan in plans if "SCAN" in plan or "TEMP B-TREE FOR ORDER" in plan], plans
    assert all("number" in plan for plan in plans if "ix_predictions" in plan), plans


def test_what_readers_say_is_a_window_of_its_own(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    given = window(300, 11, labelled=True)
    truth = given.truth[HEAD.name]
    audited = answer(sqlite_store, blobs, clinic, bundle, given.first(210), queued=["uncertain", "audit"])
    doubted = answer(sqlite_store, blobs, clinic, bundle, given.rows(slice(210, 300)), queued=["uncertain"])
    # Doubtful images say nothing of all, however many of them are read, all wrong.
    read(sqlite_store, clinic, doubted, (truth[210:] + 1) % 3)
    found = watch.standing(clinic, TASK)
    outcomes = {one.measure: one for one in found.report.findings if one.family == "outcomes"}
    assert set(outcomes) == {"accuracy", "calibration"}
    assert {one.severity for one in outcomes.values()} == {"waiting"}
    assert "0 of 50 answers have been labelled" in outcomes["accuracy"].reason
    # In the order in which readers were done, which is not that of the images.
    order = np.random.default_rng(0).permutation(210)
    read(sqlite_store, clinic, [audited[at] for at in order[:205]], truth[order[:205]])
    side = watch.standing(clinic, TASK).labels
    assert side.whole is not None
    assert (side.whole.images, side.running.images, side.whole.severity) == (200, 5, "ok")
    labels, info = watch.window(clinic, TASK, "labels")
    assert labels.of_labels
    assert info.source == "gateway, labels"
    assert labels.truth[HEAD.name].tolist() == truth[order[:200]].tolist()
    assert {one.family for one in side.whole.findings} == {"outcomes"}


def test_wrong_answers_alarm_in_what_stands(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    given = window(80, 12, labelled=True)
    entries = answer(sqlite_store, blobs, clinic, bundle, given, queued=["audit"])
    assert watch.standing(clinic, TASK).report.severity == "ok"
    read(sqlite_store, clinic, entries, (given.truth[HEAD.name] + 1) % 3)
    found = watch.standing(clinic, TASK)
    assert found.images.standing.severity == "ok"
    assert found.report.severity == "critical"
    assert found.report.alarms[0].family == "outcomes"


def test_labels_wait_while_too_many_of_the_audited_are_unread(
    sqlite_store: Store, blobs: FolderBlobs, bundle: Bundle, clinic: str, watch: Watch
) -> None:
    given = window(120, 13, labelled=True)
    entries = answer(sqlite_store, blobs, clinic, bundle, given, queued=["audit"])
    wrong = (given.truth[HEAD.name] + 1) % 3
    chosen = [*range(58), 119]
    read(sqlite_store, clinic, [entries[at] for at in chosen], wrong[chosen])
    found = watch.standing(clinic, TASK)
    assert found.report.severity == "ok"
    (accuracy,) = (one for one in found.report.findings if one.measure == "accuracy")
    assert accuracy.severity == "waiting"
    assert "51% of the images that were drawn for the audit have not been read" in accuracy.reason
    rest = list(range(58, 119))
    read(sqlite_store, clinic, [entries[at] for at in rest], wrong[rest])
    assert watch.standing(clinic, TASK).report.severity == "critical"


def test_a_window_ends_before_what_others_are_writing(blobs: FolderBlobs, bundle: Bundle, root: Path) -> None:
    url = new_database()
    one, other = Store(url), Store(url)
    try:
        clinic = tenant_of(one, "clinic")
        watch = Watch(other, root, FAST)
        answer(other, blobs, clinic, bundle, window(30, 1))
        with one.write(clinic, "late") as scope:
            windows.glance(scope, origin_of(bundle), "retake", Looks(sharpness=0.1, exposure=100.0))
            answer(other, blobs, clinic, bundle, window(30, 2))
            assert watch.standing(clinic, TASK).images.running.images == 30
        assert watch.standing(clinic, TASK).images.running.images == 61
        given, _ = watch.window(clinic, TASK)
        assert given.gradable is not None
        assert np.flatnonzero(~given.gradable).tolist() == [30]
    finally:
        one.close()
        other.close()
