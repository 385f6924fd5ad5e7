"""The three roles."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What a token is for. An admin may do what the others may; app and reviewer are apart."""

    APP = "app"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    def may(self, *allowed: Role) -> bool:
        """Whether a route that is for ``allowed`` is open to this role."""
        return self is Role.ADMIN or self in allowed
