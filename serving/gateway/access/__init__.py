"""Who may do what: API keys and bearer tokens, their roles, and the check at the door."""

from .gate import Gate, Identity
from .roles import Role
from .tokens import Issued, create, revoke, rotate

__all__ = ["Gate", "Identity", "Issued", "Role", "create", "revoke", "rotate"]
