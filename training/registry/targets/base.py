"""What a place that serves must be able to do, so that a promotion survives a crash."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from data.errors import RegistryError

if TYPE_CHECKING:
    from training.registry.client import Registry
    from training.registry.version import Version

NAMESPACE_VARIABLE = "RETIDERM_CLUSTER_NAMESPACE"


class Target(Protocol):
    """One place. Every method may be called again with the same arguments and then changes nothing."""

    @property
    def name(self) -> str:
        """As it is called in the ledger."""

    def spec(self) -> dict[str, Any]:
        """What :func:`target_from_spec` makes it of again: in the ledger, for a later process."""

    def current(self, task: str) -> dict[str, Any] | None:
        """What serves a task there now, as :meth:`restore` takes it; None for nothing."""

    def serves(self, version: Version) -> bool:
        """Whether exactly this version serves there, whole."""

    def prepare(self, version: Version) -> None:
        """Put all there that the version needs, without letting it serve."""

    def apply(self, version: Version) -> None:
        """Let it serve; returns when the place has accepted it."""

    def restore(self, task: str, state: Mapping[str, Any] | None) -> None:
        """Let serve what :meth:`current` gave."""

    def tidy(self, task: str, keep: Sequence[Version]) -> None:
        """Remove what no version in ``keep`` needs."""


@runtime_checkable
class ChallengerTarget(Target, Protocol):
    """A place that can have a second version answer beside the one that serves. Calls may be repeated."""

    def challenger(self, task: str) -> Mapping[str, Any] | None:
        """What answers beside there now: ``version``, ``digest``, ``mode``, ``share``; None for nothing."""

    def challenges(self, version: Version, mode: str, share: float) -> bool:
        """Whether exactly this answers beside there, whole."""

    def prepare_challenger(self, version: Version) -> None:
        """Put all there that the version needs to answer beside, without letting it."""

    def challenge(self, version: Version, mode: str, share: float) -> None:
        """Let it answer beside, in place of another; returns when the place has accepted it."""

    def withdraw(self, task: str) -> None:
        """Let nothing answer beside."""


def in_order(targets: Sequence[Target]) -> list[Target]:
    """The order of applying: this machine last.

    A predictor that watches the local pointer serves it within a second and serves on where the pointer of a
    first promotion is taken away again. So the pointer is turned when nothing else can refuse any more.
    """
    return sorted(targets, key=lambda target: target.name == "local")


def default_targets(registry: Registry) -> list[Target]:
    """This machine, and the cluster where ``RETIDERM_CLUSTER_NAMESPACE`` names a namespace."""
    from .cluster import ClusterTarget
    from .local import LocalTarget

    found: list[Target] = [LocalTarget(registry)]
    namespace = os.environ.get(NAMESPACE_VARIABLE)
    if namespace:
        found.append(ClusterTarget(registry, namespace))
    return found


def target_from_spec(registry: Registry, spec: Mapping[str, Any]) -> Target:
    """The target that a ledger's entry names.

    Raises:
        RegistryError: the entry names a kind that this version doesn't know.
    """
    from .cluster import ClusterTarget
    from .local import LocalTarget

    kinds: dict[str, Any] = {"local": LocalTarget.from_spec, "cluster": ClusterTarget.from_spec}
    kind = str(spec.get("kind"))
    if kind not in kinds:
        raise RegistryError(
            f"The ledger names a target of the kind {kind!r}.",
            hint="A newer version wrote it: upgrade retiderm.",
        )
    target: Target = kinds[kind](registry, spec)
    return target
