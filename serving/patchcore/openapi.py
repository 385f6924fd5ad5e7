"""What ``/docs`` says of the routes. Bodies are read by hand, within limits, so FastAPI can't see them."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_MAYBE = {"type": ["number", "null"]}
_PAIR = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
_NUMBERS = {"type": "array", "items": _NUMBER}
_FILE = {"type": "string", "format": "binary"}
_WHERE = {
    "role_id": {**_TEXT, "example": "Master1", "description": "Path-safe: letters, digits, '.', '_', '-'."},
    "roi_id": {**_TEXT, "example": "Pattern"},
    "mm_per_px": {**_NUMBER, "exclusiveMinimum": 0, "example": 0.2},
}
_ERROR = {
    "description": "Any error: a message, and a reference to the log (the stack trace when debugging).",
    "content": {
        "application/json": {"schema": {"type": "object", "properties": {"error": _TEXT, "trace": _TEXT}}}
    },
}


def _object(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required or properties)}


def _route(summary: str, answer: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "summary": summary,
        "responses": {
            200: {"content": {"application/json": {"schema": answer}}},
            "4XX": _ERROR,
            "5XX": _ERROR,
        },
    }
    if body is not None:
        said["openapi_extra"] = {"requestBody": {"required": True, "content": body}}
    return said


HEALTH = _route(
    "What serves, on what device",
    _object({"status": _TEXT, "device": _TEXT, "model": _TEXT, "version": _TEXT}),
)

FIT = _route(
    "Make a region's memory from images that are OK",
    _object(
        {
            "n_embeddings": {"type": "integer"},
            "coreset_size": {"type": "integer"},
            "token_shape": _PAIR,
            "coreset_rate_requested": _NUMBER,
            "coreset_rate_applied": _NUMBER,
        }
    ),
    {
        "multipart/form-data": {
            "schema": _object(
                {
                    **_WHERE,
                    "images": {
                        "type": "array",
                        "items": _FILE,
                        "description": "PNG or JPEG, all of one size.",
                    },
                    "incremental": {"type": "boolean", "description": "Join the memory that there is."},
                    "memory_fit": {"type": "boolean", "description": "Keep every embedding."},
                },
                (*_WHERE, "images"),
            )
        }
    },
)

CALIBRATE = _route(
    "Set a region's threshold by scores",
    _object(
        {
            "threshold": _NUMBER,
            "p99_ok": _MAYBE,
            "p5_ng": _MAYBE,
            "mm_per_px": _NUMBER,
            "area_mm2_thr": _NUMBER,
            "score_percentile": _NUMBER,
        }
    ),
    {
        "application/json": {
            "schema": _object(
                {
                    **_WHERE,
                    "ok_scores": {**_NUMBERS, "minItems": 1},
                    "ng_scores": {**_NUMBERS, "type": ["array", "null"]},
                    "area_mm2_thr": {**_NUMBER, "default": 1.0},
                    "score_percentile": {**_NUMBER, "default": 99},
                },
                (*_WHERE, "ok_scores"),
            )
        }
    },
)

INFER = _route(
    "Score one image of a region",
    _object(
        {
            "role_id": _TEXT,
            "roi_id": _TEXT,
            "score": {**_NUMBER, "minimum": 0, "maximum": 4},
            "threshold": {**_MAYBE, "description": "null while the region isn't calibrated"},
            "heatmap_png_base64": {"type": "string", "format": "byte"},
            "regions": {
                "type": "array",
                "items": _object(
                    {
                        "bbox": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                        "area_px": _NUMBER,
                        "area_mm2": _NUMBER,
                        "contour": {"type": "array", "items": _PAIR},
                    }
                ),
            },
            "token_shape": _PAIR,
            "params": {"type": "object"},
        }
    ),
    {
        "multipart/form-data": {
            "schema": _object(
                {
                    **_WHERE,
                    "image": _FILE,
                    "shape": {**_TEXT, "example": '{"kind": "circle", "cx": 192, "cy": 192, "r": 180}'},
                },
                (*_WHERE, "image"),
            )
        }
    },
)
