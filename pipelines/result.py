"""The result of a run as JSON with a fixed schema: ``result.schema.json``, explained in docs/pipelines.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.files import read_json, write_json
from data.provenance import hardware, versions
from pipelines.local import RunRecord, error_of

SCHEMA = Path(__file__).with_name("result.schema.json")
SCHEMA_VERSION = 1
_PACKAGES = (
    "retiderm",
    "kfp",
    "torch",
    "timm",
    "onnxruntime",
    "mlflow",
    "kserve",
    "numpy",
    "opencv-python-headless",
)


def result(record: RunRecord) -> dict[str, Any]:
    """Everything about a run, ended well or not; valid against the schema."""
    from pipelines.fingerprint import whole_code_digest

    request, task = record.request, record.request.task
    gate = _json(record, "gate", "decision")
    receipt = _json(record, "promote", "receipt")
    dataset = _dataset(record)
    card = _card(record)
    shape = request.shape
    evaluation = _json(record, shape.judged_step, "evaluation")
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "task": task.name,
        "task_digest": task.digest,
        "kind": task.kind,
        "status": _status(record, gate),
        "started_at": record.started_at.isoformat(timespec="seconds"),
        "seconds": record.seconds,
        "source": request.source,
        "source_digest": record.source_digest,
        "split": request.split,
        "seed": request.seed,
        "profile": task.profile,
        "backbone": task.backbone,
        "overrides": dict(request.overrides),
        "synthetic": dataset.get("synthetic"),
        "forbids": sorted(card.get("forbids", dataset.get("forbids", []))),
        "dataset_digest": dataset.get("digest"),
        "test_digest": dataset.get("test_digest"),
        "counts": dataset.get("counts"),
        "code_digest": whole_code_digest(),
        "version": record.outputs.get("register", {}).get("Output"),
        "bundle_digest": _bundle_digest(record),
        "mlflow_run_id": record.outputs.get(shape.run_step, {}).get("Output"),
        "metrics": _metrics(evaluation),
        "calibration": _calibration(evaluation),
        "anomaly": _anomaly(record, evaluation),
        "gate": gate,
        "promoted": receipt is not None,
        "served_by": record.outputs.get("deploy", {}).get("Output"),
        "steps": _steps(record, gate),
        "error": _error(record),
        "hardware": hardware(),
        "versions": versions(*_PACKAGES),
        "artifacts": _artifacts(record),
    }


def write(record: RunRecord, out: Path | None) -> dict[str, Any]:
    """The result, written beside the run's log and to ``out`` when given."""
    value = result(record)
    write_json(record.folder / "result.json", value)
    if out is not None:
        write_json(out, value)
    return value


def _status(record: RunRecord, gate: Mapping[str, Any] | None) -> str:
    if record.interrupted:
        return "interrupted"
    if record.failed is not None or gate is None:
        return "failed"
    return "completed" if gate["decision"] == "accept" else "refused"


def _error(record: RunRecord) -> dict[str, Any] | None:
    error = error_of(record)
    step = record.failed
    if error is None or step is None:
        return None
    told = step.error or {}
    return {
        "step": step.name,
        "type": told.get("type", "Exception"),
        "code": told.get("code", "unexpected"),
        "message": told.get("message", error.message),
        "hint": told.get("hint"),
        "rows": list(told.get("rows", ())),
    }


def _steps(record: RunRecord, gate: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    found = []
    for name in record.request.shape.steps:
        step = record.steps.get(name)
        if step is not None:
            status = "failed" if step.status == "running" else step.status
            found.append(
                {"name": name, "status": status, "seconds": step.seconds, "cached": status == "cached"}
            )
        else:
            status = "skipped" if gate is not None and record.failed is None else "not_reached"
            found.append({"name": name, "status": status, "seconds": 0.0, "cached": False})
    return found


def _artifacts(record: RunRecord) -> dict[str, str]:
    paths = {
        f"{step}.{name}": str(value)
        for step, values in record.outputs.items()
        for name, value in values.items()
        if isinstance(value, Path)
    }
    return {"run": str(record.folder), "log": str(record.log), **paths}


def _path(record: RunRecord, step: str, name: str) -> Path | None:
    value = record.outputs.get(step, {}).get(name)
    return value if isinstance(value, Path) and value.exists() else None


def _json(record: RunRecord, step: str, name: str) -> dict[str, Any] | None:
    path = _path(record, step, name)
    value = read_json(path) if path is not None and path.is_file() else None
    return value if isinstance(value, dict) else None


def _dataset(record: RunRecord) -> dict[str, Any]:
    path = _path(record, "ingest", "dataset")
    info = path / "dataset.json" if path else None
    value = read_json(info) if info is not None and info.is_file() else {}
    return dict(value)


def _card(record: RunRecord) -> dict[str, Any]:
    path = _path(record, "export", "bundle")
    return dict(read_json(path / "card.json")) if path and (path / "card.json").is_file() else {}


def _bundle_digest(record: RunRecord) -> str | None:
    from data.files import sha256_file

    path = _path(record, "export", "bundle")
    return f"sha256:{sha256_file(path / 'card.json')}" if path and (path / "card.json").is_file() else None


_ALWAYS = ("auc", "accuracy", "balanced_accuracy", "nll", "ece")
#: Of graded heads, and of anomaly models.
_SOMETIMES = ("kappa", "f1", "best_f1", "pixel_auroc", "pro")
_NONE = {"value": None, "low": None, "high": None}


def _metrics(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        name: {
            "n": head["n"],
            **{figure: head.get(figure, _NONE) for figure in _ALWAYS},
            **{figure: head[figure] for figure in _SOMETIMES if figure in head},
            "classes": head["classes"],
        }
        for name, head in evaluation["heads"].items()
    }


def _anomaly(record: RunRecord, evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What an anomaly model decides by, and its memory; None for another kind, or where it wasn't judged."""
    if evaluation is None or record.request.task.kind != "anomaly":
        return None
    memory = _path(record, "coreset", "memory")
    proof = _card(record).get("parity", {}).get("features", {})
    told = evaluation["threshold"]
    return {
        "threshold": told["threshold"],
        "p99_ok": told["p99_ok"],
        "p5_ng": told["p5_ng"],
        "memory": read_json(memory / "built.json") if memory is not None else None,
        "parity": proof.get("max_difference"),
    }


def _calibration(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Of probabilities, so None where a model gives none."""
    if evaluation is None or not all("calibration" in head for head in evaluation["heads"].values()):
        return None
    found = {}
    for name, head in evaluation["heads"].items():
        told = head["calibration"]
        coverage = told.get("coverage") or {}
        found[name] = {
            "temperature": told["temperature"],
            "nll": {
                "before": told["nll_before"],
                "after": told["nll_after"],
                "improved": told["nll_improved"],
            },
            "ece": {
                "before": told["ece_before"],
                "after": told["ece_after"],
                "band": told["ece_band"],
                "inside": told["ece_inside"],
            },
            "coverage": {
                "stated": coverage.get("target"),
                "observed": coverage.get("value"),
                "conformal": coverage.get("conformal"),
                "band": coverage.get("band"),
                "inside": coverage.get("inside"),
                "set_size": coverage.get("set_size"),
            },
            "uncertain_share": told["uncertain_share"],
        }
    return found
