"""What a request asks for, read strictly from its form or JSON, and nothing done yet."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from data.errors import RequestError
from serving.core.patchcore.names import check_token
from serving.patchcore.errors import TooLarge
from serving.patchcore.form import Form, Part
from serving.patchcore.settings import Limits

# As in JSON, with the sign and the spaces that forms have; float() also takes nan, inf and 1_000.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
# What clients send that don't look at the file: then its bytes decide alone.
_ANY_TYPE = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_SHOWN = 40
# A pixel a kilometre wide: far beyond any part, and areas of such pixels are still finite numbers.
_MAX_SCALE = 1e6
_SHAPES = {"rect": ("x", "y", "w", "h"), "circle": ("cx", "cy", "r"), "annulus": ("cx", "cy", "r", "r_inner")}


@dataclass(frozen=True, slots=True)
class Named:
    """The region that a request is about; both ids are path-safe."""

    role: str
    roi: str


@dataclass(frozen=True, slots=True)
class FitAsked:
    """A fit. ``whole`` keeps every embedding; ``incremental`` adds to the memory that there is."""

    named: Named
    mm_per_px: float
    images: tuple[Part, ...]
    whole: bool = False
    incremental: bool = False


@dataclass(frozen=True, slots=True)
class InferAsked:
    """One image to be scored. ``shape`` is the mask as sent, or None for the whole region."""

    named: Named
    mm_per_px: float
    image: Part
    shape: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class CalibrateAsked:
    """Scores to set a threshold by."""

    named: Named
    mm_per_px: float
    ok_scores: tuple[float, ...]
    ng_scores: tuple[float, ...] | None
    area_mm2_thr: float
    score_percentile: float


def fit_asked(form: Form) -> FitAsked:
    """A fit, from its form. Raises ``RequestError``."""
    return FitAsked(
        named=_named(_one(form, "role_id"), _one(form, "roi_id")),
        mm_per_px=_scale(_one(form, "mm_per_px")),
        images=_images(form, "images"),
        whole=_flag(form, "memory_fit"),
        incremental=_flag(form, "incremental"),
    )


def infer_asked(form: Form) -> InferAsked:
    """An inference, from its form. Raises ``RequestError``.

    A later version of the old GUI called the file ``file``; so does this one's client where ``image`` is
    missing.
    """
    name = "image" if "image" in form.files or "file" not in form.files else "file"
    images = _images(form, name)
    if len(images) > 1:
        raise RequestError(f"{len(images)} files are named {name!r}.", hint="Ask about one image at a time.")
    text = _optional(form, "shape")
    return InferAsked(
        named=_named(_one(form, "role_id"), _one(form, "roi_id")),
        mm_per_px=_scale(_one(form, "mm_per_px")),
        image=images[0],
        shape=_shape(text) if text is not None and text.strip() else None,
    )


def calibrate_asked(body: bytes, limits: Limits) -> CalibrateAsked:
    """A calibration, from its JSON body. Raises ``RequestError`` or ``TooLarge``."""
    values = _json(body, "The body")
    if not isinstance(values, dict):
        raise RequestError("The body is not a JSON object.", hint='Send {"role_id": …, "ok_scores": […]}.')
    ok, ng = _scores(values, "ok_scores"), _scores(values, "ng_scores")
    if len(ok or ()) + len(ng or ()) > limits.max_scores:
        raise TooLarge(f"More than {limits.max_scores:,} scores.", hint="A sample of them is enough.")
    if not ok:
        raise RequestError(
            "There is no OK score, so there is no threshold.", hint="Send at least one number in ok_scores."
        )
    return CalibrateAsked(
        named=_named(_string(values, "role_id"), _string(values, "roi_id")),
        mm_per_px=_scale(_number(values, "mm_per_px", None)),
        ok_scores=ok,
        ng_scores=ng,
        area_mm2_thr=_at_least_0("area_mm2_thr", _number(values, "area_mm2_thr", 1.0)),
        score_percentile=_percentile(_number(values, "score_percentile", 99)),
    )


def _named(role: str, roi: str) -> Named:
    return Named(check_token(role, "role_id"), check_token(roi, "roi_id"))


def _one(form: Form, name: str) -> str:
    value = _optional(form, name)
    if value is None:
        raise RequestError(f"The form has no field {name!r}.", hint=f"Add it: -F {name}=…")
    return value


def _optional(form: Form, name: str) -> str | None:
    if name in form.files:
        raise RequestError(f"{name!r} was sent as a file.", hint="Send it as a text field.")
    values = form.fields.get(name, [])
    if len(set(values)) > 1:
        raise RequestError(f"The form has {len(values)} different values of {name!r}.", hint="Send one.")
    return values[0] if values else None


def _flag(form: Form, name: str) -> bool:
    text = (_optional(form, name) or "false").strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", ""):
        return False
    raise RequestError(f"{name!r} is {_shown(text)}.", hint="It is true or false.")


def _images(form: Form, name: str) -> tuple[Part, ...]:
    parts = form.files.get(name, [])
    if not parts:
        sent = " as text" if name in form.fields else ""
        raise RequestError(
            f"The form has no file {name!r}{', only a field of this name' if sent else ''}.",
            hint=f"Send image files: -F {name}=@IMAGE.png",
        )
    for part in parts:
        if not (part.content_type.startswith("image/") or part.content_type in _ANY_TYPE):
            raise RequestError(
                f"A file of {name!r} was sent as {_shown(part.content_type)}, which is no image type.",
                hint="Send PNG or JPEG, as image/png or image/jpeg.",
            )
    return tuple(parts)


def _shape(text: str) -> Mapping[str, Any] | None:
    """The mask, in one spelling. The old service took any case, ``rect`` where no kind was named, and numbers
    that the kind doesn't have; an empty object was the whole region."""
    value = _json(text.encode(), "'shape'")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise RequestError(
            "'shape' is not a JSON object.", hint='Send such as {"kind": "circle", "cx": 9, "cy": 9, "r": 9}.'
        )
    kind = value.get("kind", "rect")
    kind = kind.lower() if isinstance(kind, str) else kind
    known = _SHAPES.get(kind, ()) if isinstance(kind, str) else ()
    return {"kind": kind, **{name: value[name] for name in known if name in value}}


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data, parse_constant=_no_constant)
    except _NotANumber as error:
        raise RequestError(
            f"{what} has {error} for a number.", hint="JSON knows finite numbers only."
        ) from None
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise RequestError(f"{what} is not JSON ({why}).", hint="Send JSON in UTF-8.") from None


class _NotANumber(Exception):
    """JSON's extensions NaN, Infinity and -Infinity, which Python's parser takes."""


def _no_constant(name: str) -> NoReturn:
    raise _NotANumber(name)


def _string(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{name!r} is {_shown(value)}, not a text.", hint=f"Name the region by {name}.")
    return value


def _number(values: Mapping[str, Any], name: str, default: float | None) -> float:
    value = values.get(name)
    if value is None and default is not None:
        return default
    return _finite(value, name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name!r} is {_shown(value)}, not a number.", hint="Send a JSON number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RequestError(f"{name!r} is not a finite number.", hint="Send a JSON number.")
    return number


def _scores(values: Mapping[str, Any], name: str) -> tuple[float, ...] | None:
    given = values.get(name)
    if given is None:
        return None
    if not isinstance(given, list):
        raise RequestError(f"{name!r} is {_shown(given)}, not a list.", hint="Send a JSON list of numbers.")
    return tuple(_finite(value, name) for value in given)


def _scale(value: str | float) -> float:
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise RequestError(f"'mm_per_px' is {_shown(value)}, not a number.", hint="Write it as 0.2.")
        value = float(value)
    if not (math.isfinite(value) and value > 0):
        raise RequestError(
            f"'mm_per_px' is {value:g}.", hint="It is the millimetres that a pixel is wide, above 0."
        )
    if value > _MAX_SCALE:
        raise RequestError(
            f"'mm_per_px' is {value:g}, a pixel of more than a kilometre.",
            hint="It is the millimetres that a pixel is wide.",
        )
    return value


def _at_least_0(name: str, value: float) -> float:
    if value < 0:
        raise RequestError(f"{name!r} is {value:g}.", hint="It is 0 or more.")
    return value


def _percentile(value: float) -> float:
    if not 0 < value <= 100:
        raise RequestError(f"'score_percentile' is {value:g}.", hint="It is above 0 and at most 100.")
    return value


def _shown(value: Any) -> str:
    text = repr(value) if value is not None else "missing"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
