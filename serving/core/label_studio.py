"""Label Studio: cases as its tasks with predictions, and its annotations as labels. Plain JSON both ways.

A task is ``{"data": {"image": <address>, "case": <key>, …}, "predictions": […]}``; what Label Studio exports
as JSON has the same ``data`` and beside it ``annotations``, each by one person (``completed_by``) with a list
of ``result``. Every head is one ``Choices`` control named like the head, so that results name it as
``from_name``. :func:`config` writes the labelling interface that goes with it.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from data.errors import RequestError, UsageError

#: The controls that every interface has beside the heads'.
IMAGE, CANNOT_GRADE, COMMENT = "image", "cannot_grade", "comment"

#: Before the names of its people, where nobody gave them others.
PREFIX = "label_studio:"

#: The keys of a task's ``data`` that are ours.
CASE, TASK = "case", "task"

#: Reasons that a reader can choose from. Another text is taken too, when it comes back.
REASONS = ("blurred", "too_dark", "too_bright", "wrong_subject", "covered", "other")

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Choice:
    """One head as a question: its classes in order, and what people read for them (the names when empty)."""

    head: str
    classes: tuple[str, ...]
    titles: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A case to label: ``image`` is the address Label Studio shows (see :func:`data_url`, :func:`local_url`).

    ``probabilities`` is what the model said, ``{head: {class: p}}``, and ``model`` which one it was. ``more``
    goes into the task's data, to be shown or sorted by.
    """

    case: str
    image: str
    probabilities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    model: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One label as it came back: a class, or why it can't be graded. ``at`` is ISO 8601 with its zone."""

    case: str
    head: str
    value: str | None
    cannot_grade: str | None
    reader: str
    at: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """The labels of an export; ``skipped`` says in words which annotations hold none (cancelled, empty)."""

    answers: tuple[Answer, ...]
    skipped: tuple[str, ...]


def config(choices: Sequence[Choice], reasons: Sequence[str] = REASONS) -> str:
    """The labelling interface as Label Studio's XML."""
    _check(choices)
    view = ElementTree.Element("View")
    ElementTree.SubElement(
        view, "Image", name=IMAGE, value=f"${IMAGE}", zoom="true", zoomControl="true", rotateControl="false"
    )
    for choice in choices:
        ElementTree.SubElement(view, "Header", value=choice.title or choice.head)
        control = ElementTree.SubElement(
            view, "Choices", name=choice.head, toName=IMAGE, choice="single-radio", showInline="true"
        )
        titles = choice.titles or choice.classes
        for name, title in zip(choice.classes, titles, strict=True):
            ElementTree.SubElement(control, "Choice", value=name, hint=title)
    ElementTree.SubElement(view, "Header", value="Cannot grade, because")
    control = ElementTree.SubElement(
        view, "Choices", name=CANNOT_GRADE, toName=IMAGE, choice="single", showInline="true"
    )
    for reason in reasons:
        ElementTree.SubElement(control, "Choice", value=reason)
    ElementTree.SubElement(
        view, "TextArea", name=COMMENT, toName=IMAGE, placeholder="Comment", maxSubmissions="1"
    )
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def tasks(questions: Iterable[Question], choices: Sequence[Choice], task: str) -> list[dict[str, Any]]:
    """Cases as Label Studio's tasks, for its import.

    A prediction's ``score`` is the least of the heads' top probabilities, so that sorting by it shows the
    least certain first. A head of other classes (another version's answer) has no prediction: these choices
    can't say it. Ids of results depend on the case alone: the same batch is the same file.
    """
    _check(choices)
    made = []
    for question in questions:
        data = {**question.more, CASE: question.case, TASK: task, IMAGE: question.image}
        entry: dict[str, Any] = {"data": data, "predictions": []}
        results, scores = [], []
        for choice in choices:
            said = question.probabilities.get(choice.head)
            if said is None or set(said) != set(choice.classes):
                continue
            top = max(choice.classes, key=said.__getitem__)
            scores.append(float(said[top]))
            results.append(
                {
                    "id": hashlib.sha256(f"{question.case}\0{choice.head}".encode()).hexdigest()[:10],
                    "from_name": choice.head,
                    "to_name": IMAGE,
                    "type": "choices",
                    "value": {"choices": [top]},
                }
            )
        if results:
            entry["predictions"] = [
                {"model_version": question.model, "score": min(scores), "result": results}
            ]
        made.append(entry)
    return made


def read(document: str | bytes) -> list[Any]:
    """The tasks in a JSON export. :class:`RequestError` for any other text."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"The annotations are not JSON: {error}.",
            hint="Export the project as JSON (not JSON-MIN, CSV …).",
        ) from error
    if not isinstance(found, list):
        raise RequestError(
            "The annotations are no list of tasks.", hint="Export the project as JSON (not JSON-MIN, CSV …)."
        )
    return found


def answers(
    exported: Sequence[Any],
    choices: Sequence[Choice],
    known: Collection[str],
    *,
    task: str,
    readers: Mapping[str, str] | None = None,
) -> Imported:
    """The labels in Label Studio's exported tasks: all of them, or an error that names what is wrong.

    ``known`` are the cases that there are. ``readers`` gives names to Label Studio's users, by e-mail address
    or number; others are ``label_studio:<address or number>``. Where one reader annotated a case twice, the
    newer annotation counts.

    Raises:
        RequestError: unknown cases, another task's, unknown classes, or an export of another form.
    """
    _check(choices)
    wrong: dict[str, list[str]] = {}
    newest: dict[tuple[str, str], tuple[dt.datetime, list[Answer]]] = {}
    skipped: list[str] = []
    for number, entry in enumerate(exported, 1):
        data = entry.get("data") if isinstance(entry, dict) else None
        case = data.get(CASE) if isinstance(data, dict) else None
        if not isinstance(entry, dict) or not isinstance(data, dict) or not isinstance(case, str):
            wrong.setdefault("without data.case, so not of an export of ours", []).append(f"task {number}")
            continue
        if data.get(TASK) != task:
            wrong.setdefault(f"not of the task {task}", []).append(f"{case} ({data.get(TASK)})")
            continue
        if case not in known:
            wrong.setdefault("of unknown cases", []).append(case)
            continue
        given = entry.get("annotations")
        if not isinstance(given, list):
            wrong.setdefault("without annotations (export the project as JSON)", []).append(case)
            continue
        for annotation in given:
            try:
                one = _annotation(case, annotation, choices, readers or {})
            except ValueError as error:
                wrong.setdefault("not understood", []).append(f"{case}: {error}")
                continue
            if isinstance(one, str):
                skipped.append(f"{case}: {one}")
                continue
            when = dt.datetime.fromisoformat(one[0].at)
            key = (case, one[0].reader)
            if key not in newest or when >= newest[key][0]:
                newest[key] = (when, one)
    if wrong:
        told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in wrong.items())
        raise RequestError(
            f"Nothing was imported. Tasks are {told}.",
            hint="Take these tasks out, or import where their cases are; a deleted case takes no label.",
        )
    return Imported(tuple(answer for _, found in newest.values() for answer in found), tuple(skipped))


def data_url(image: bytes, media_type: str) -> str:
    """An image inside the task itself: nothing is fetched. For small batches: it is a third larger."""
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def local_url(path: str) -> str:
    """The address of a file that Label Studio serves itself; ``path`` is below its local-files root.

    Raises:
        UsageError: the path is absolute or leads out of that root.
    """
    plain = PurePosixPath(path)
    if plain.is_absolute() or ".." in plain.parts or not plain.parts:
        raise UsageError(
            f"{path!r} is no path below Label Studio's root of local files.",
            hint="Give it relative to LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.",
        )
    return f"/data/local-files/?d={quote(plain.as_posix())}"


def _check(choices: Sequence[Choice]) -> None:
    names = [choice.head for choice in choices]
    if not names or len(set(names)) != len(names) or {IMAGE, CANNOT_GRADE, COMMENT} & set(names):
        raise UsageError(
            f"The heads {', '.join(names) or '(none)'} can't be controls of one labelling interface.",
            hint=f"Names must differ from each other and from {IMAGE}, {CANNOT_GRADE} and {COMMENT}.",
        )


def _annotation(
    case: str, annotation: Any, choices: Sequence[Choice], readers: Mapping[str, str]
) -> list[Answer] | str:
    """One person's labels of a case, or why there are none. ``ValueError`` says what is not understood."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        raise ValueError("an annotation has no list of results")
    reader = _reader(annotation.get("completed_by"), readers)
    if annotation.get("was_cancelled"):
        return f"skipped by {reader}"
    at = _time(annotation.get("updated_at") or annotation.get("created_at"))
    said: dict[str, str] = {}
    comment = None
    for result in annotation["result"]:
        if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
            raise ValueError("a result has no value")
        name = result.get("from_name")
        if name == COMMENT:
            comment = " ".join(map(str, result["value"].get("text", []))).strip() or None
        elif result.get("type") == "choices":
            said[str(name)] = _one(str(name), result["value"].get("choices"))
    heads = {choice.head: choice for choice in choices}
    reason = said.pop(CANNOT_GRADE, None)
    if strange := sorted(said.keys() - heads.keys()):
        raise ValueError(f"there is no head {', '.join(strange)}")
    for name, label in said.items():
        if label not in heads[name].classes:
            raise ValueError(f"{name} has no class {label!r}")
    if reason is not None and len(said) == len(heads):
        raise ValueError(f"{reader} gave a class and says that it can't be graded")
    found = list(_answers(case, heads, said, reason, reader, at, comment))
    return found or f"nothing was said by {reader}"


def _answers(
    case: str,
    heads: Collection[str],
    said: Mapping[str, str],
    reason: str | None,
    reader: str,
    at: str,
    comment: str | None,
) -> Iterator[Answer]:
    for head in heads:
        if head in said:
            yield Answer(case, head, said[head], None, reader, at, comment)
        elif reason is not None:
            yield Answer(case, head, None, reason, reader, at, comment)


def _one(name: str, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise ValueError(f"{name} needs one choice, not {choices!r}")
    return choices[0]


def _reader(completed_by: Any, readers: Mapping[str, str]) -> str:
    """Who annotated: Label Studio writes a number, or an object with number and e-mail address."""
    names = [completed_by]
    if isinstance(completed_by, dict):
        names = [completed_by.get("email"), completed_by.get("id")]
    told = [str(name) for name in names if name not in (None, "")]
    if not told:
        raise ValueError("an annotation doesn't say who made it (completed_by)")
    return next((readers[name] for name in told if name in readers), f"{PREFIX}{told[0]}")


def _time(text: Any) -> str:
    try:
        found = dt.datetime.fromisoformat(str(text))
    except ValueError:
        raise ValueError(f"{text!r} is no time (updated_at)") from None
    if found.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone (updated_at)")
    return found.astimezone(dt.UTC).isoformat()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
