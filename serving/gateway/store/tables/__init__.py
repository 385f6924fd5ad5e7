"""The tables. A change here needs a migration; a test compares the two."""

from .base import Base, Row, Tenanted
from .drift import DriftWindow, Glance
from .loop import Batch, Features, QueueEntry
from .people import Patient, Tenant, Token
from .pictures import Blob, Image, Prediction, Scan
from .review import Case, CaseEntry, Label, Rejection
from .work import AuditEntry, AuditHead, ErasedImage, Erasure, IdempotencyKey, Job

__all__ = [
    "AuditEntry",
    "AuditHead",
    "Base",
    "Batch",
    "Blob",
    "Case",
    "CaseEntry",
    "DriftWindow",
    "ErasedImage",
    "Erasure",
    "Features",
    "Glance",
    "IdempotencyKey",
    "Image",
    "Job",
    "Label",
    "Patient",
    "Prediction",
    "QueueEntry",
    "Rejection",
    "Row",
    "Scan",
    "Tenant",
    "Tenanted",
    "Token",
]
