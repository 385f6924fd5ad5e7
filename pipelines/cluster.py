"""What a task asks of a cluster, laid on a pipeline's steps, and the pipeline as YAML."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import TaskError, UsageError

if TYPE_CHECKING:
    from pipelines.shape import Shape
    from training.spec.parts import StepSpec
    from training.task import Task

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

#: Where the claim of ``--home-claim`` is mounted.
MOUNT = "/var/lib/retiderm"

#: The claim that ``manifests/kubeflow/home.yaml`` makes.
HOME_CLAIM = "retiderm-home"


def seconds(text: str) -> int:
    """``90s``, ``30m``, ``2h``, ``1.5d`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        raise TaskError(f"{text!r} is no duration.", hint="Write 90s, 30m or 2h.")
    return max(1, round(float(found[1]) * _SECONDS[found[2]]))


@dataclass(frozen=True, slots=True)
class Place:
    """What all steps of a pipeline share on a cluster.

    ``home_claim`` is a volume claim (ReadWriteMany) that keeps the ledger, the image store and unfinished
    trainings between pods. There must be one: with a ledger that is empty in each pod the promotion would not
    know what the gate decided.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    home_claim: str = HOME_CLAIM

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", self.home_claim):
            raise UsageError(
                f"{self.home_claim!r} names no volume claim.",
                hint="Give --home-claim the claim that keeps the ledger; manifests/kubeflow/home.yaml makes "
                f"{HOME_CLAIM}.",
            )


def configure(task: Any, spec: StepSpec, place: Place) -> None:
    """Lay one step's resources, retries, timeout, secrets, node and volume on its kfp task."""
    from kfp import kubernetes

    if spec.cpu:
        task.set_cpu_request(spec.cpu).set_cpu_limit(spec.cpu)
    if spec.memory:
        task.set_memory_request(spec.memory).set_memory_limit(spec.memory)
    if spec.gpu:
        task.set_accelerator_type(spec.gpu_resource).set_accelerator_limit(spec.gpu)
    if spec.retries:
        task.set_retry(spec.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
    if spec.timeout:
        kubernetes.set_timeout(task, seconds(spec.timeout))
    for variable, where in spec.secrets.items():
        secret, key = where.split("/")
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env={key: variable})
    for label, value in spec.node_selector.items():
        kubernetes.add_node_selector(task, label_key=label, label_value=value)
    for variable, value in place.environment.items():
        task.set_env_variable(variable, value)
    kubernetes.mount_pvc(task, pvc_name=place.home_claim, mount_path=MOUNT)
    task.set_env_variable("RETIDERM_HOME", MOUNT)


def pipeline(
    task: Task, place: Place | None = None, *, fresh: bool = False, shape: Shape | None = None
) -> Any:
    """The task's pipeline as a cluster runs it; ``shape`` is another than the one its kind takes."""
    from pipelines.shape import shape_of

    shape = shape or shape_of(task)
    return shape.build(
        lambda step, made: configure(made, task.step(step), place or Place()),
        name=f"{shape.name}-{task.name.replace('_', '-')}",
        fresh=fresh,
    )


def write_yaml(
    task: Task,
    out: Path,
    place: Place | None = None,
    *,
    fresh: bool = False,
    parameters: Mapping[str, Any] | None = None,
    shape: Shape | None = None,
) -> Path:
    """Compile a task's pipeline to ``out`` (``.yaml``); ``parameters`` become its inputs' defaults."""
    from kfp import compiler

    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp warns of its own deprecated calls
        compiler.Compiler().compile(
            pipeline(task, place, fresh=fresh, shape=shape),
            str(out),
            pipeline_parameters=dict(parameters or {}),
        )
    return out
