"""A client for ``/v1`` in Python: typed answers, one connection, and repetitions that do nothing twice.

>>> from serving.gateway.client import Client
>>> with Client("http://127.0.0.1:8000", token) as gateway:  # doctest: +SKIP
...     answer = gateway.predict("photograph.jpg", "skin_lesion", explain=True)
...     answer.heads["diagnosis"].label, answer.overlay_url

Needs ``httpx`` and nothing else of the gateway's.
"""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from data.errors import (
    Conflict,
    ImageDamaged,
    ImageError,
    ImageTooLarge,
    NotAllowed,
    NotAnImage,
    NotFound,
    Overloaded,
    RequestError,
    RetidermError,
    ServingError,
    StoreError,
    StoreFull,
    TokenRefused,
)

Picture = str | os.PathLike[str] | bytes

_KINDS: tuple[type[RetidermError], ...] = (
    Conflict, ImageDamaged, ImageError, ImageTooLarge, NotAllowed, NotAnImage, NotFound, Overloaded,
    RequestError, StoreError, StoreFull, TokenRefused,
)  # fmt: skip
_ERRORS = {kind.code: kind for kind in _KINDS} | {"model_away": Overloaded, "too_many_requests": Overloaded}
_AGAIN = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent again that the server had no time for, or that got no answer.

    ``times`` beyond the first; it waits as long as the server asks, else ``first_s`` and twice as long each
    time, ``most_s`` at most.
    """

    times: int = 4
    first_s: float = 0.5
    most_s: float = 30.0

    def wait_s(self, attempt: int, said: str | None) -> float:
        """Before attempt number ``attempt``, 1 the first repetition; ``said`` is ``Retry-After``."""
        wanted = float(said) if said is not None and said.isdigit() else self.first_s * 2 ** (attempt - 1)
        return min(wanted, self.most_s)


@dataclass(frozen=True, slots=True)
class Head:
    """One head's answer. ``members`` is the conformal set."""

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    members: tuple[str, ...]
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said of an image; ``heads`` is empty where ``verdict`` isn't ``gradable``.

    ``uncertain``: a person should look. ``anomaly`` is an anomaly model's part, None of the others.
    """

    id: str
    image_id: str
    task: str
    verdict: str
    reasons: tuple[str, ...]
    heads: Mapping[str, Head]
    anomaly: Mapping[str, Any] | None
    uncertain: bool
    model: Mapping[str, str]
    overlay_url: str | None
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Image:
    """A kept image. ``url`` gives it to whoever has it until ``url_expires_at``."""

    id: str
    media_type: str
    width: int
    height: int
    patient_id: str | None
    url: str
    url_expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient."""

    id: str
    name: str
    age: int | None
    email: str | None
    phone: str | None
    medical_history: str | None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers now."""

    name: str
    task: str
    version: str
    digest: str
    classes: Mapping[str, tuple[str, ...]]


class Client:
    """A gateway's ``/v1``. Use it in a ``with``, or close it. May be shared between threads.

    Every method raises what the server said as one of ``data.errors``: :class:`TokenRefused`,
    :class:`NotAllowed`, :class:`NotFound`, :class:`Conflict`, :class:`ImageError`, :class:`Overloaded` (still
    no time after all repetitions), or :class:`ServingError`.
    """

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 60.0, retries: Retries | None = None
    ) -> None:
        self._retries = retries or Retries()
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers={"authorization": f"Bearer {token}"}, timeout=timeout_s
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def models(self) -> list[ServedModel]:
        """Every model that answers now."""
        found = self._send("GET", "/v1/models")["items"]
        return [
            ServedModel(
                one["name"],
                one["task"],
                one["version"],
                one["digest"],
                {head: tuple(classes) for head, classes in one["classes"].items()},
            )
            for one in found
        ]

    def predict(
        self, image: Picture, task: str, *, explain: bool = False, patient_id: str | None = None
    ) -> Prediction:
        """Keep a photograph (a path or a file's bytes) and have a task's model answer it."""
        query = {"task": task, "explain": str(explain).lower(), "patient_id": patient_id}
        return _prediction(self._upload("/v1/predictions", image, query))

    def predict_kept(self, image_id: str, task: str, *, explain: bool = False) -> Prediction:
        """Have an image answered that is kept already."""
        body = {"image_id": image_id, "task": task, "explain": explain}
        return _prediction(self._send("POST", "/v1/predictions", json=body))

    def prediction(self, prediction_id: str) -> Prediction:
        """An earlier answer, as it was."""
        return _prediction(self._send("GET", f"/v1/predictions/{prediction_id}"))

    def trace(self, prediction_id: str) -> dict[str, Any]:
        """What an answer rests on: image, bundle, data set and code, by their digests."""
        return self._send("GET", f"/v1/predictions/{prediction_id}/trace")

    def upload(self, image: Picture, *, patient_id: str | None = None) -> Image:
        """Keep a photograph."""
        return _image(self._upload("/v1/images", image, {"patient_id": patient_id}))

    def image(self, image_id: str) -> Image:
        """A kept image, with a fresh address."""
        return _image(self._send("GET", f"/v1/images/{image_id}"))

    def add_patient(
        self,
        name: str,
        *,
        age: int | None = None,
        email: str | None = None,
        phone: str | None = None,
        medical_history: str | None = None,
    ) -> Patient:
        """A new patient."""
        said = {"name": name, "age": age, "email": email, "phone": phone, "medical_history": medical_history}
        given = {key: value for key, value in said.items() if value is not None}
        return _patient(self._send("POST", "/v1/patients", json=given))

    def patient(self, patient_id: str) -> Patient:
        """A patient."""
        return _patient(self._send("GET", f"/v1/patients/{patient_id}"))

    def patients(self) -> Iterator[Patient]:
        """Every patient, oldest first, page after page."""
        return (_patient(one) for one in self._pages("/v1/patients"))

    def cases(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Every case that the filters take (``status``, ``task``, …), oldest first."""
        return self._pages("/v1/cases", **filters)

    def label(
        self,
        image_id: str,
        task: str,
        head: str,
        *,
        value: str | None = None,
        cannot_grade: str | None = None,
        comment: str | None = None,
    ) -> dict[str, Any]:
        """Say what is seen in an image: a class, or why it can't be graded. For reviewers."""
        said = {"image_id": image_id, "task": task, "head": head, "value": value, "comment": comment}
        given = {key: one for key, one in {**said, "cannot_grade": cannot_grade}.items() if one is not None}
        return self._send("POST", "/v1/labels", json=given)

    def erase(self, reason: str, **whom: str) -> dict[str, Any]:
        """Erase a ``patient_id``, a ``user`` or a ``case`` with everything of theirs. For administrators."""
        return self._send("POST", "/v1/erasures", json={**whom, "reason": reason})

    def _upload(self, path: str, image: Picture, query: Mapping[str, str | None]) -> dict[str, Any]:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        given = {key: value for key, value in query.items() if value is not None}
        headers = {"content-type": "application/octet-stream"}
        return self._send("POST", path, content=data, params=given, headers=headers)

    def _pages(self, path: str, **filters: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            page = self._send("GET", path, params={**filters, **({"after": after} if after else {})})
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def _send(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = dict(request.pop("headers", {}))
        if method == "POST":
            # The same key with every repetition: what was done is answered and not done again.
            headers.setdefault("idempotency-key", str(uuid.uuid4()))
        attempt = 0
        while True:
            attempt += 1
            last = attempt > self._retries.times
            try:
                response = self._client.request(method, path, headers=headers, **request)
            except httpx.TransportError as error:
                if last:
                    raise ServingError(
                        f"No answer from {self._client.base_url} ({type(error).__name__}).",
                        hint="Is the gateway running, and is this its address?",
                    ) from error
                time.sleep(self._retries.wait_s(attempt, None))
                continue
            if response.status_code in _AGAIN and not last:
                time.sleep(self._retries.wait_s(attempt, response.headers.get("retry-after")))
                continue
            return _body(response)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    if response.is_success and isinstance(found, dict):
        return found
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        raise ServingError(f"The gateway answered {response.status_code} and not as /v1 does.")
    kind = _ERRORS.get(str(error.get("code")), RequestError if response.status_code < 500 else ServingError)
    said = f"{error.get('message')} (request {error.get('request_id')})"
    raise kind(said, hint=error.get("hint"))


def _prediction(found: Mapping[str, Any]) -> Prediction:
    heads = {
        name: Head(
            one["label"],
            one["confidence"],
            one["probabilities"],
            tuple(one["set"]),
            one["uncertain"],
        )
        for name, one in found["heads"].items()
    }
    quality, model = found["quality"], found["model"]
    return Prediction(
        found["id"],
        found["image_id"],
        found["task"],
        quality["verdict"],
        tuple(quality["reasons"]),
        heads,
        found["anomaly"],
        found["uncertain"],
        model,
        found["overlay"]["url"] if found["overlay"] is not None else None,
        dt.datetime.fromisoformat(found["created_at"]),
    )


def _image(found: Mapping[str, Any]) -> Image:
    return Image(
        found["id"],
        found["media_type"],
        found["width"],
        found["height"],
        found["patient_id"],
        found["url"],
        dt.datetime.fromisoformat(found["url_expires_at"]),
    )


def _patient(found: Mapping[str, Any]) -> Patient:
    return Patient(*(found[name] for name in ("id", "name", "age", "email", "phone", "medical_history")))
