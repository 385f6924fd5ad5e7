"""What happens when a reader says what they see: labels, two readers, a third who decides, undo.

An entry's state follows from the labels that stand (:func:`state_of`); nothing else is remembered, so that an
undo leads back to where it was.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.errors import Conflict, RequestError
from serving.core.label_studio import PREFIX
from serving.gateway.loop import answers
from serving.gateway.store.repositories import images, labels, predictions, queue
from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Label, Prediction, QueueEntry

#: Where a label comes from: a reader here, one who decides between readers here, or a Label Studio project.
REVIEW, ADJUDICATION, STUDIO = "review", "adjudication", "label_studio"
#: However often a user rejects: two and one more, as where two disagree and a third decides.
_MOST_READERS = 3
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Said:
    """One head's label: a class, or why the image can't be graded. Exactly one of the two."""

    value: str | None = None
    cannot_grade: str | None = None


def record(
    scope: Scope, entry_id: str, *, reader: str, said: Mapping[str, Said], comment: str | None = None
) -> QueueEntry:
    """Keep what a reader says of an entry; what the same reader said before is taken back.

    Raises:
        NotFound: the entry is gone, for instance since its patient was erased.
        RequestError: a head or class is not the model's, or a head is left out.
        Conflict: somebody else has labelled it, and it needs no further reader.
    """
    entry = _locked(scope, entry_id)
    prediction = predictions.get(scope, entry.prediction_id)
    _check(said, classes_of(prediction), comment)
    source = _admit(entry, labels_of(scope, entry), reader)
    return _keep(scope, entry, reader, said, comment, source)


def bring_in(
    scope: Scope,
    entry_id: str,
    *,
    reader: str,
    said: Mapping[str, Said],
    at: dt.datetime,
    comment: str | None = None,
) -> str | None:
    """Keep what somebody said of an entry in Label Studio at a moment, as of then.

    It never takes the place of what the same person said here, or there later, and never decides between
    readers: whoever said it had not seen that they disagree.

    Returns:
        Why it was left aside, None where it was kept.

    Raises:
        NotFound, RequestError: as for :func:`record`.
        Conflict: others have labelled it, and it needs no further reader, or one who decides.
    """
    entry = _locked(scope, entry_id)
    _check(said, classes_of(predictions.get(scope, entry.prediction_id)), comment)
    standing = labels_of(scope, entry)
    own = [row for row in standing if same_reader(row.reader, reader)]
    if any(row.source != STUDIO for row in own):
        return f"{own[0].reader} has labelled it here"
    if any(row.created_at > at for row in own):
        return f"a newer label of {reader} stands"
    if not own and _admit(entry, standing, reader) == ADJUDICATION:
        raise Conflict(
            f"{' and '.join(by_reader(standing))} disagree, and who decides has to know that.",
            hint="Decide on the review page.",
        )
    _keep(scope, entry, reader, said, comment, STUDIO, at)
    return None


def same_reader(one: str, other: str) -> bool:
    """Whether two names are one person's: Label Studio's people have its name before theirs."""
    first, second = (name.removeprefix(PREFIX).casefold() for name in (one, other))
    return first == second


def _locked(scope: Scope, entry_id: str) -> QueueEntry:
    """An entry, locked: its image before it, as an erasure does, or the two would wait for each other."""
    entry = queue.get(scope, entry_id)
    images.get(scope, entry.image_id, lock=True)
    # What was read before the lock may have changed since.
    scope.session.expire(entry)
    return queue.get(scope, entry_id, lock=True)


def _keep(
    scope: Scope,
    entry: QueueEntry,
    reader: str,
    said: Mapping[str, Said],
    comment: str | None,
    source: str,
    at: dt.datetime | None = None,
) -> QueueEntry:
    for row in labels_of(scope, entry):
        if same_reader(row.reader, reader):
            labels.withdraw(scope, row.id)
    for head, one in said.items():
        labels.add(
            scope,
            image_id=entry.image_id,
            task=entry.task,
            head=head,
            reader=reader,
            value=one.value,
            cannot_grade=one.cannot_grade,
            comment=comment or None,
            case_id=entry.case_id,
            prediction_id=entry.prediction_id,
            source=source,
            at=at,
        )
    return _settle(scope, entry)


def undo(scope: Scope, entry_id: str, *, reader: str) -> QueueEntry:
    """Take back what a reader said of an entry, or that they skipped it.

    Raises:
        NotFound: the entry is gone.
        Conflict: there is nothing of this reader's to take back.
    """
    entry = _locked(scope, entry_id)
    own = [row for row in labels_of(scope, entry) if row.reader == reader]
    if not own and entry.state != "skipped":
        raise Conflict("There is nothing of yours to take back here.")
    for row in own:
        labels.withdraw(scope, row.id)
    if entry.state == "skipped":
        queue.move(scope, entry.id, "waiting")
    return _settle(scope, entry)


def skip(scope: Scope, entry_id: str, *, reader: str) -> QueueEntry:
    """Put an entry aside. Labels that stand stay, and so does what they made of it.

    Raises:
        NotFound: the entry is gone.
    """
    entry = _locked(scope, entry_id)
    if entry.state == "waiting":
        scope.audit("queue.skip", f"image:{entry.image_id}", entry=entry.id, reader=reader)
        return queue.move(scope, entry.id, "skipped")
    return entry


def doubt(scope: Scope, entry: QueueEntry) -> QueueEntry:
    """A user rejects what was labelled: one further reader looks, as the second of two does.

    What was put aside waits again. Where somebody has decided between readers, or three have read it, it
    stays as it is.
    """
    standing = labels_of(scope, entry)
    read = len(by_reader(standing))
    decided = any(row.source == ADJUDICATION for row in standing)
    if entry.state == "skipped":
        queue.move(scope, entry.id, "waiting")
        return _settle(scope, entry)
    if entry.state != "done" or decided or read >= _MOST_READERS:
        return entry
    entry.readers_needed = max(entry.readers_needed, read + 1)
    scope.audit("queue.doubt", f"image:{entry.image_id}", entry=entry.id, readers=read)
    return _settle(scope, entry)


def labels_of(scope: Scope, entry: QueueEntry) -> list[Label]:
    """The labels that stand for an entry, oldest first."""
    return labels.listed(scope, image_id=entry.image_id, task=entry.task)


def classes_of(prediction: Prediction) -> dict[str, tuple[str, ...]]:
    """The heads of the model that answered, each with its classes."""
    return answers.classes_of(prediction.answer)


def by_reader(standing: Iterable[Label]) -> dict[str, dict[str, str | None]]:
    """For each reader, in the order of their first label, each head's class; None for "cannot grade"."""
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    for row in standing:
        found[row.reader][row.head] = row.value
    return dict(found)


def state_of(standing: Sequence[Label], readers_needed: int, skipped: bool = False) -> str:
    """``waiting``, ``adjudicate``, ``done`` or ``skipped``, by the labels that stand."""
    if any(row.source == ADJUDICATION for row in standing):
        return "done"
    readers = by_reader(standing)
    if len(readers) < readers_needed:
        return "skipped" if skipped and not readers else "waiting"
    first, *others = readers.values()
    return "done" if all(other == first for other in others) else "adjudicate"


def is_half_read(standing: Sequence[Label], readers_needed: int) -> bool:
    """Whether somebody has read it, fewer than it needs have, and nobody decided; skipped or not.

    What is said of it is for nobody else yet: the second reader is not to know, and nothing learns from it.
    """
    return bool(standing) and state_of(standing, readers_needed) == "waiting"


def verdict_of(standing: Sequence[Label]) -> list[Label]:
    """The labels that count: an adjudicator's where there is one, else the first reader's."""
    decided = [row for row in standing if row.source == ADJUDICATION]
    if decided:
        return decided
    return [row for row in standing if row.reader == standing[0].reader] if standing else []


def _admit(entry: QueueEntry, standing: Sequence[Label], reader: str) -> str:
    """As what a reader's labels count. ``Conflict`` where the entry needs no one else."""
    own = [row for row in standing if same_reader(row.reader, reader)]
    if any(row.source == ADJUDICATION and row not in own for row in standing):
        raise _taken(standing)
    if own:
        return ADJUDICATION if own[0].source == ADJUDICATION else REVIEW
    if len(by_reader(standing)) < entry.readers_needed:
        return REVIEW
    if state_of(standing, entry.readers_needed) == "adjudicate":
        return ADJUDICATION
    raise _taken(standing)


def _taken(standing: Sequence[Label]) -> Conflict:
    last = standing[-1]
    when = last.created_at.strftime("%Y-%m-%d %H:%M UTC")
    return Conflict(
        f"This image was labelled by {last.reader} at {when}.",
        hint="Go on with the next one; ask for two readers where a second opinion is wanted.",
    )


def _settle(scope: Scope, entry: QueueEntry) -> QueueEntry:
    state = state_of(labels_of(scope, entry), entry.readers_needed, skipped=entry.state == "skipped")
    return queue.move(scope, entry.id, state)


def _check(said: Mapping[str, Said], classes: Mapping[str, tuple[str, ...]], comment: str | None) -> None:
    if set(said) != set(classes):
        raise RequestError(
            f"The label names {', '.join(sorted(said)) or 'no head'}; the model's heads are "
            f"{', '.join(classes)}.",
            hint="Say each head's class, or that it can't be graded.",
        )
    for head, one in said.items():
        if (one.value is None) == (one.cannot_grade is None):
            raise RequestError(f"{head}: say either a class, or why it can't be graded.")
        if one.value is not None and one.value not in classes[head]:
            raise RequestError(
                f"{head} has no class {one.value!r}.", hint=f"Its classes: {', '.join(classes[head])}."
            )
        if one.cannot_grade is not None and not 0 < len(one.cannot_grade.strip()) <= _LONGEST:
            raise RequestError(f"{head}: why it can't be graded has 1 to {_LONGEST} characters.")
    if comment is not None and len(comment) > _LONGEST:
        raise RequestError(f"A comment has at most {_LONGEST} characters.")
