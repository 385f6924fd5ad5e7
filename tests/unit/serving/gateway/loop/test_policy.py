"""Which answers ask for a reader."""

from __future__ import annotations

import pytest

from data.errors import UsageError
from serving.gateway.loop.policy import WEIGHTS, QueuePolicy, disagree, priority
from serving.identity import ModelInfo
from serving.replies import AnomalyReply, HeadReply, ModelReply

QUIET = QueuePolicy(audit=0.0)


def reply(
    label: str = "yes",
    *,
    members: tuple[str, ...] = ("yes",),
    uncertain: bool = False,
    verdict: str = "gradable",
    confidence: float = 0.9,
    name: str = "acne",
) -> ModelReply:
    head = HeadReply(label, confidence, {"no": 1 - confidence, "yes": confidence}, members, uncertain)
    heads = {"acne": head} if verdict == "gradable" else {}
    return ModelReply(ModelInfo(name, "1", "sha256:0", "fp32"), verdict, (), heads)


@pytest.mark.parametrize(
    ("said", "unusual", "expected"),
    [
        (reply(), 0.5, ()),
        (reply(), None, ()),
        (reply(uncertain=True), 0.5, ("uncertain",)),
        (reply(members=("no", "yes")), 0.5, ("several",)),
        (reply(), 0.995, ("unusual",)),
        (reply(uncertain=True, members=("no", "yes")), 1.0, ("uncertain", "several", "unusual")),
        # An image that nobody can judge takes no reader's time, whatever else is strange about it.
        (reply(verdict="retake"), 1.0, ()),
        (reply(verdict="ungradable", uncertain=True), 1.0, ()),
    ],
)
def test_doubts(said: ModelReply, unusual: float | None, expected: tuple[str, ...]) -> None:
    assert QUIET.doubts(said, unusual=unusual, key="a") == expected


def scored(score: float, threshold: float | None) -> ModelReply:
    model = ModelInfo("anomaly", "1", "sha256:0", "fp32")
    return ModelReply(model, "gradable", (), {}, AnomalyReply(score, threshold))


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (2.0, 2.0, True),
        (2.19, 2.0, True),
        (1.83, 2.0, True),
        (2.21, 2.0, False),
        (1.81, 2.0, False),
        (0.0, 2.0, False),
        # A memory that was not calibrated says nothing about what is near.
        (2.0, None, False),
        (0.0, 0.0, False),
    ],
)
def test_an_anomaly_score_near_its_threshold_is_uncertain(
    score: float, threshold: float | None, expected: bool
) -> None:
    said = QUIET.doubts(scored(score, threshold), unusual=None, key="a")
    assert said == (("uncertain",) if expected else ())
    assert QueuePolicy(audit=0.0, near=0.2).doubts(scored(2.3, 2.0), unusual=None, key="a")


def test_the_nearer_a_score_is_to_its_threshold_the_sooner_it_is_read() -> None:
    scores = (2.0, 1.95, 2.1, 1.85)
    order = sorted(scores, key=lambda score: priority(["uncertain"], scored(score, 2.0)), reverse=True)
    assert order == [2.0, 1.95, 2.1, 1.85]


def test_the_audit_is_a_share_of_all_and_belongs_to_the_image() -> None:
    policy = QueuePolicy(audit=0.1)
    drawn = [policy.doubts(reply(), unusual=None, key=str(n)) for n in range(5000)]
    assert 0.08 < sum("audit" in found for found in drawn) / 5000 < 0.12
    assert drawn == [policy.doubts(reply(), unusual=None, key=str(n)) for n in range(5000)]
    # Another task draws anew: one image is not audited everywhere or nowhere.
    other = [policy.doubts(reply(name="skin_lesion"), unusual=None, key=str(n)) for n in range(5000)]
    assert other != drawn
    assert not any(QUIET.doubts(reply(), unusual=None, key=str(n)) for n in range(5000))


def test_what_a_user_or_a_second_model_says_comes_first() -> None:
    order = sorted(WEIGHTS, key=lambda reason: priority([reason]), reverse=True)
    assert order[:3] == ["rejected", "audit", "disagreement"]
    assert priority(["uncertain"], reply(confidence=0.4)) > priority(["uncertain"], reply(confidence=0.8))
    assert priority(["uncertain", "unusual"]) > priority(["unusual"])


def test_audited_images_are_read_as_they_came_however_doubtful() -> None:
    plain = priority(["audit"], reply(confidence=0.99))
    assert plain == priority(["audit", "uncertain", "unusual", "disagreement"], reply(confidence=0.3))
    assert plain > priority(["disagreement"], reply(confidence=0.0))
    assert priority(["audit", "rejected"], reply()) > plain
    # Others may come before the audit; within it nothing moves.
    assert priority(["unusual", "uncertain", "several"], reply()) > plain


def test_two_models_disagree_about_a_label_only() -> None:
    assert disagree({"skin": "dry", "hair": "wavy"}, {"skin": "oily", "hair": "wavy"})
    assert not disagree({"skin": "dry"}, {"skin": "dry", "hair": "wavy"})
    assert not disagree({"skin": "dry"}, {})


@pytest.mark.parametrize(
    "wrong", [{"audit": 1.5}, {"audit": -0.1}, {"readers": 3}, {"unusual": -1.0}, {"near": -0.1}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        QueuePolicy(**wrong)  # type: ignore[arg-type]
