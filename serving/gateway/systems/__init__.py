"""The systems that a gateway can serve, by name."""

from __future__ import annotations

from serving.gateway.routing import System


def all_systems() -> dict[str, System]:
    """Every system, in the order of the contracts. Imported late: each brings its own weight."""
    from serving.gateway.systems import review, s0, s1, s2, s3, s4, v1

    found = (s0.SYSTEM, s1.SYSTEM, s2.SYSTEM, s3.SYSTEM, s4.SYSTEM, v1.SYSTEM, review.SYSTEM)
    return {system.name: system for system in found}
