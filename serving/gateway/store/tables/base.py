"""What every table has in common."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import Double, ForeignKey, ForeignKeyConstraint, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from serving.gateway.store.types import ID, Json, UtcDateTime, new_id


class Base(DeclarativeBase):
    """The base of all tables. Constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dt.datetime: UtcDateTime,
        float: Double(),
        dict[str, Any]: Json,
        list[Any]: Json,
        list[str]: Json,
    }


class Tenanted:
    """A row of one tenant. Sessions add the tenant to every query on these; see ``scope.py``.

    The tenant is a part of the primary key, and references are by tenant and id, so that the database itself
    refuses a row that points at another tenant's.
    """

    tenant_id: Mapped[str] = mapped_column(ID, ForeignKey("tenants.id"), primary_key=True, sort_order=-3)


class Row(Tenanted):
    """A tenant's row with an id, a UUID, and the moment of its making.

    Where rows have an order, a ``number`` gives it, see ``numbers.py``: a clock that was moved can't turn it.
    """

    id: Mapped[str] = mapped_column(ID, primary_key=True, default=new_id, sort_order=-2)
    created_at: Mapped[dt.datetime] = mapped_column(sort_order=-1)


def refers(column: str, table: str) -> ForeignKeyConstraint:
    """A reference from ``column`` to the id of a row of the same tenant."""
    return ForeignKeyConstraint(["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"])
