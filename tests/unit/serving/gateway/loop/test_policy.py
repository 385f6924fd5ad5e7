"""Which answers ask for a reader."""

from __future__ import annotations

import pytest

from data.errors import UsageError
from serving.gateway.loop.policy import WEIGHTS, QueuePolicy, disagree, priority
from serving.identity import ModelInfo
from serving.replies import HeadReply, ModelReply

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


def test_two_models_disagree_about_a_label_only() -> None:
    assert disagree({"skin": "dry", "hair": "wavy"}, {"skin": "oily", "hair": "wavy"})
    assert not disagree({"skin": "dry"}, {"skin": "dry", "hair": "wavy"})
    assert not disagree({"skin": "dry"}, {})


@pytest.mark.parametrize("wrong", [{"audit": 1.5}, {"audit": -0.1}, {"readers": 3}, {"unusual": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        QueuePolicy(**wrong)  # type: ignore[arg-type]
