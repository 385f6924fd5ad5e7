"""The gateway's rows: typed tables, their migrations, and the functions that read and write them.

:class:`~serving.gateway.store.engine.Store` opens a database; its ``write`` and ``read`` give a
:class:`~serving.gateway.store.scope.Scope`, one transaction of one tenant, which every function of
:mod:`serving.gateway.store.repositories` takes first.
"""

from .engine import Store, open_store
from .scope import Scope

__all__ = ["Scope", "Store", "open_store"]
