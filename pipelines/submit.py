"""Sends a compiled pipeline to Kubeflow, once or on a schedule."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import RetidermError, UsageError
from pipelines.cluster import Place
from pipelines.request import Request

#: Where the bearer token is read from, in this order; never from the command line, where others can see it.
TOKENS = ("RETIDERM_KFP_TOKEN", "KF_PIPELINES_TOKEN")


class SubmitError(RetidermError):
    """Kubeflow could not be reached, or refused."""

    code = "submit"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to send it. ``token`` None: look in the environment."""

    host: str
    namespace: str | None = None
    experiment: str = "retiderm"
    service_account: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What Kubeflow made of it."""

    kind: str  # "run" or "recurring run"
    id: str
    name: str
    link: str


def check_cron(cron: str) -> str:
    """Kubeflow's cron has six fields, seconds first."""
    fields = cron.split()
    if len(fields) == 5:
        return f"0 {cron}"
    if len(fields) != 6:
        raise UsageError(
            f"{cron!r} is no schedule.", hint="Six fields, seconds first: '0 0 3 * * 1' is Mondays at 3."
        )
    return cron


def submit(
    request: Request,
    cluster: Cluster,
    *,
    cron: str | None = None,
    source_digest: str = "",
    place: Place | None = None,
) -> Submission:
    """Compile the task's pipeline and start it on a cluster, now or by ``cron``.

    Raises:
        SubmitError: the host can't be reached, or refused; says what it answered.
    """
    from pipelines.cluster import write_yaml

    schedule = check_cron(cron) if cron else None
    arguments = request.arguments(source_digest)
    # First: a wrong address, or no token, is said at once and not after a compilation.
    with _kubeflow_errors(cluster.host), contextlib.redirect_stdout(io.StringIO()):
        client = _client(cluster)
    with tempfile.TemporaryDirectory() as folder:
        package = write_yaml(
            request.task,
            Path(folder) / "pipeline.yaml",
            place,
            # Without a digest, or on a schedule, nobody can say whether the source changed: look each time.
            fresh=schedule is not None or not source_digest,
            shape=request.shape,
        )
        with _kubeflow_errors(cluster.host), contextlib.redirect_stdout(io.StringIO()):
            experiment = client.create_experiment(cluster.experiment, namespace=cluster.namespace)
            name = f"{request.task.name} from {request.source}"
            if schedule is None:
                # enable_caching stays unset: setting it would overrule the steps that must never be cached.
                made = client.run_pipeline(
                    experiment.experiment_id,
                    name,
                    pipeline_package_path=str(package),
                    params=arguments,
                    service_account=cluster.service_account,
                )
                return Submission("run", made.run_id, name, f"{cluster.host}/#/runs/details/{made.run_id}")
            job = client.create_recurring_run(
                experiment.experiment_id,
                name,
                cron_expression=schedule,
                max_concurrency=1,
                no_catchup=True,
                pipeline_package_path=str(package),
                params=arguments,
                service_account=cluster.service_account,
            )
            identity = job.recurring_run_id
            return Submission(
                "recurring run", identity, name, f"{cluster.host}/#/recurringrun/details/{identity}"
            )


def _client(cluster: Cluster) -> Any:
    import kfp

    token = cluster.token or next((os.environ[name] for name in TOKENS if os.environ.get(name)), None)
    _knock(cluster.host, token)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that it is for Kubeflow Pipelines 2, which we mean
        return kfp.Client(host=cluster.host, existing_token=token)


def _knock(host: str, token: str | None) -> None:
    """Ask for the health page once: kfp's client asks five times, with traces, before it says anything."""
    request = urllib.request.Request(f"{host}/apis/v2beta1/healthz")
    if request.type not in ("http", "https"):
        raise UsageError(f"{host!r} is no address.", hint="Begin it with http:// or https://.")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        body = error.read(500).decode(errors="replace").strip()
        error.close()
        raise _refused(host, error.code, body) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise SubmitError(
            f"Kubeflow at {host} can't be reached: {reason}",
            hint="Check the address; from outside: kubectl port-forward -n kubeflow svc/ml-pipeline 8888.",
        ) from None
    except ValueError:
        raise SubmitError(
            f"{host} answers with a page, not as Kubeflow Pipelines' API.",
            hint=f"That is most often a login page: set a token in {TOKENS[0]}, or correct the address.",
        ) from None


def _refused(host: str, status: int, body: str) -> SubmitError:
    login = status in (401, 403)
    return SubmitError(
        f"Kubeflow at {host} answered {status}: {body[:500]}",
        hint=f"Set a token in {TOKENS[0]}; see docs/pipelines.md." if login else None,
    )


@contextlib.contextmanager
def _kubeflow_errors(host: str) -> Iterator[None]:
    import kfp_server_api  # type: ignore[import-untyped]
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        raise _refused(host, error.status, str(error.body or error.reason).strip()) from error
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise SubmitError(f"Kubeflow at {host} stopped answering: {error}", hint="Try again.") from error
