"""What is read and written, one module a kind of row.

Every public function takes a :class:`~serving.gateway.store.scope.Scope` first, which is a tenant's: it sees
that tenant's rows only, and another's look as if they were not there. A test walks over all of them.
"""
