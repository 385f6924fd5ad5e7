"""Patients (S2)."""

from __future__ import annotations

from serving.gateway.store.scope import Scope
from serving.gateway.store.tables import Patient

from .parts import one, own, page


def add(
    scope: Scope,
    *,
    name: str,
    age: int | None = None,
    email: str | None = None,
    phone: str | None = None,
    medical_history: str | None = None,
) -> Patient:
    """A new patient."""
    row = Patient(
        tenant_id=scope.tenant,
        number=scope.number(),
        name=name,
        age=age,
        email=email,
        phone=phone,
        medical_history=medical_history,
        created_at=scope.now,
        updated_at=scope.now,
    )
    scope.session.add(row)
    scope.session.flush()
    return row


def get(scope: Scope, patient_id: str) -> Patient:
    """A patient; ``NotFound`` ("Patient not found") where there is none."""
    return one(scope, Patient, patient_id, "Patient")


def listed(scope: Scope, *, after: int = 0, skip: int = 0, limit: int = 10) -> list[Patient]:
    """Patients in the order of their making, at most a thousand, from the one after number ``after``."""
    query = own(scope, Patient).where(Patient.number > after).order_by(Patient.number, Patient.id)
    return list(scope.session.scalars(page(query, skip, limit)))
