"""What a client asks, read from V1 JSON and from V2 in its four forms (contract S5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson
from kserve import InferRequest

from data.errors import RequestError
from serving.kserve_ext.tensors import check_count, only_input, parameters, read_blobs

Explain = Literal["", "overlay", "map", "view"]

_WORDS: dict[Any, Explain] = {
    False: "", None: "", "": "", "false": "",
    True: "overlay", "true": "overlay", "overlay": "overlay", "map": "map", "view": "view",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """Encoded images, as bytes or still as base64 text, and for each which explanation is wanted.

    ``features``: what ``serving.features`` says of an image is wanted too (V2 alone has it).
    """

    images: tuple[bytes | str, ...]
    explain: tuple[Explain, ...]
    features: bool = False


def from_v1(payload: Any, *, explain: bool, max_batch: int) -> Question:
    """``{"instances": [{"image_bytes": {"b64": …}, "explain": true}]}``; with ``explain`` all get an overlay.

    Raises:
        TooLarge: there are more than ``max_batch`` instances.
        RequestError: with what is missing and where.
    """
    if isinstance(payload, bytes | str):
        # KServe leaves a body alone whose content type it doesn't know ("application/json; charset=utf-8").
        try:
            payload = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise RequestError(f"The body is not JSON ({error}).") from None
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list) or not instances:
        raise RequestError(
            'The body has no list of instances: {"instances": [{"image_bytes": {"b64": "…"}}]}.'
        )
    check_count(len(instances), max_batch)
    images, wanted = [], []
    for i, instance in enumerate(instances):
        source = instance.get("image_bytes") if isinstance(instance, dict) else None
        text = source.get("b64") if isinstance(source, dict) else None
        if not isinstance(text, str):
            raise RequestError(f'instances.{i} has no image: {{"image_bytes": {{"b64": "…"}}}}.')
        images.append(text)
        wanted.append(_explain(instance.get("explain"), f"instances.{i}.explain"))
    if explain:
        wanted = ["overlay"] * len(wanted)
    return Question(tuple(images), tuple(wanted))


def from_v2(request: InferRequest, *, max_batch: int) -> Question:
    """One input ``image`` BYTES [N], and the parameters ``explain`` and ``features``.

    Raises:
        TooLarge: there are more than ``max_batch`` images.
        RequestError: the input or the parameter is another.
    """
    images = read_blobs(only_input(request, "image", "BYTES", "[N]"), max_batch)
    given = parameters(request)
    mode = _explain(given.get("explain"), "parameters.explain")
    return Question(tuple(images), (mode,) * len(images), _features(given.get("features")))


def _features(value: Any) -> bool:
    word = value.lower() if isinstance(value, str) else value
    if word in (None, "", "false") or word is False:
        return False
    if word == "true" or word is True:
        return True
    raise RequestError(f"parameters.features is true or false, not {str(value)[:40]!r}.")


def _explain(value: Any, where: str) -> Explain:
    word = value.lower() if isinstance(value, str) else value
    # 1 and 0 are equal to True and False, and yet nobody has asked for anything with them.
    if (word is not None and not isinstance(word, bool | str)) or word not in _WORDS:
        raise RequestError(
            f'{where} is one of false, true, "overlay", "map" and "view", not {str(value)[:40]!r}.'
        )
    return _WORDS[word]
