"""The tables of the gateway's store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration says its types itself: what the tables' own modules say may change later.
ID = sa.String(36)
SHORT = sa.String(200)
MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# The audit log only grows.
_SQLITE = [
    f"""CREATE TRIGGER audit_log_no_{verb.lower()} BEFORE {verb} ON audit_log
        BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"""
    for verb in ("UPDATE", "DELETE")
]
_POSTGRESQL = [
    """CREATE FUNCTION audit_log_only_grows() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$""",
    """CREATE TRIGGER audit_log_only_grows BEFORE UPDATE OR DELETE ON audit_log
       FOR EACH ROW EXECUTE FUNCTION audit_log_only_grows()""",
    """CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log
       FOR EACH STATEMENT EXECUTE FUNCTION audit_log_only_grows()""",
]


def upgrade() -> None:
    """Make them all."""
    op.create_table(
        "tenants",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", SHORT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    op.create_table(
        "audit_heads",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_audit_heads_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_audit_heads"),
    )
    op.create_table(
        "audit_log",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", SHORT, nullable=False),
        sa.Column("action", SHORT, nullable=False),
        sa.Column("about", SHORT, nullable=False),
        sa.Column("data", sa.String(), nullable=False),
        sa.Column("prev", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_audit_log_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "seq", name="pk_audit_log"),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_blobs_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "sha256", name="pk_blobs"),
    )
    op.create_table(
        "erasures",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("about", SHORT, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.Column("learned", JSON, nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_erasures_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_about", "erasures", ["tenant_id", "about"])
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("owner", SHORT, nullable=False),
        sa.Column("route", SHORT, nullable=False),
        sa.Column("key", SHORT, nullable=False),
        sa.Column("request_digest", SHORT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", JSON, nullable=True),
        sa.Column("about", SHORT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_idempotency_keys_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "owner", "route", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_about", "idempotency_keys", ["tenant_id", "about"])
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["tenant_id", "expires_at"])
    op.create_table(
        "jobs",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("kind", SHORT, nullable=False),
        sa.Column("about", SHORT, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint("status IN ('queued', 'running', 'done', 'failed')", name="ck_jobs_status"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_jobs_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_about", "jobs", ["tenant_id", "about"])
    op.create_index("ix_jobs_status", "jobs", ["tenant_id", "status"])
    op.create_table(
        "patients",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("age", sa.Integer(), nullable=True),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("phone", sa.String(), nullable=True),
        sa.Column("medical_history", sa.String(), nullable=True),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_patients_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_patients"),
    )
    op.create_index("ix_patients_number", "patients", ["tenant_id", "number"])
    op.create_table(
        "tokens",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", SHORT, nullable=False),
        sa.Column("subject", SHORT, nullable=False),
        sa.Column("lookup", sa.String(length=32), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_by", SHORT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("replaced_by", ID, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.CheckConstraint("kind IN ('api_key', 'bearer')", name="ck_tokens_kind"),
        sa.CheckConstraint("role IN ('app', 'reviewer', 'admin')", name="ck_tokens_role"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tokens_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_tokens"),
        sa.UniqueConstraint("lookup", name="uq_tokens_lookup"),
    )
    op.create_index("ix_tokens_name", "tokens", ["tenant_id", "name"])
    op.create_table(
        "erased_images",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("erasure_id", ID, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("labelled", sa.Boolean(), nullable=False),
        sa.Column("settled_at", MOMENT, nullable=True),
        sa.Column("kept", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "erasure_id"],
            ["erasures.tenant_id", "erasures.id"],
            name="fk_erased_images_tenant_id_erasure_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_erased_images_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "erasure_id", "sha256", name="pk_erased_images"),
    )
    op.create_table(
        "images",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("system", sa.String(length=16), nullable=False),
        sa.Column("owner", SHORT, nullable=False),
        sa.Column("patient_id", ID, nullable=True),
        sa.Column("derived_from", ID, nullable=True),
        sa.Column("case_key", SHORT, nullable=True),
        sa.CheckConstraint("kind IN ('original', 'overlay')", name="ck_images_kind"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "derived_from"],
            ["images.tenant_id", "images.id"],
            name="fk_images_tenant_id_derived_from",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "patient_id"],
            ["patients.tenant_id", "patients.id"],
            name="fk_images_tenant_id_patient_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "sha256"], ["blobs.tenant_id", "blobs.sha256"], name="fk_images_tenant_id_sha256"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_images_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_images"),
    )
    op.create_index("ix_images_case_key", "images", ["tenant_id", "case_key"])
    op.create_index("ix_images_derived_from", "images", ["tenant_id", "derived_from"])
    op.create_index("ix_images_patient", "images", ["tenant_id", "patient_id"])
    op.create_index("ix_images_sha256", "images", ["tenant_id", "sha256"])
    op.create_table(
        "cases",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("key", SHORT, nullable=False),
        sa.Column("image_id", ID, nullable=True),
        sa.Column("patient_id", ID, nullable=True),
        sa.Column("task", SHORT, nullable=True),
        sa.Column("status", SHORT, nullable=True),
        sa.Column("user_id", SHORT, nullable=True),
        sa.Column("user_role", SHORT, nullable=True),
        sa.Column("rejected", sa.Boolean(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "image_id"], ["images.tenant_id", "images.id"], name="fk_cases_tenant_id_image_id"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "patient_id"],
            ["patients.tenant_id", "patients.id"],
            name="fk_cases_tenant_id_patient_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_cases_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_cases"),
        sa.UniqueConstraint("tenant_id", "key", name="uq_cases_tenant_id_key"),
    )
    op.create_index("ix_cases_image", "cases", ["tenant_id", "image_id"])
    op.create_index("ix_cases_number", "cases", ["tenant_id", "number"])
    op.create_index("ix_cases_patient", "cases", ["tenant_id", "patient_id"])
    op.create_index("ix_cases_status", "cases", ["tenant_id", "status"])
    op.create_index("ix_cases_user", "cases", ["tenant_id", "user_id"])
    op.create_table(
        "scans",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("system", sa.String(length=16), nullable=False),
        sa.Column("owner", SHORT, nullable=False),
        sa.Column("patient_id", ID, nullable=True),
        sa.Column("image_id", ID, nullable=True),
        sa.Column("overlay_id", ID, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("visit_type", sa.String(length=40), nullable=True),
        sa.Column("notes", sa.String(), nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.Column("failure", JSON, nullable=True),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'failed')", name="ck_scans_status"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "image_id"], ["images.tenant_id", "images.id"], name="fk_scans_tenant_id_image_id"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "overlay_id"],
            ["images.tenant_id", "images.id"],
            name="fk_scans_tenant_id_overlay_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "patient_id"],
            ["patients.tenant_id", "patients.id"],
            name="fk_scans_tenant_id_patient_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_scans_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_scans"),
    )
    op.create_index("ix_scans_image", "scans", ["tenant_id", "image_id"])
    op.create_index("ix_scans_number", "scans", ["tenant_id", "number"])
    op.create_index("ix_scans_owner", "scans", ["tenant_id", "owner"])
    op.create_index("ix_scans_patient", "scans", ["tenant_id", "patient_id"])
    op.create_table(
        "case_entries",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("case_id", ID, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("by", SHORT, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "case_id"],
            ["cases.tenant_id", "cases.id"],
            name="fk_case_entries_tenant_id_case_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_case_entries_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_case_entries"),
    )
    op.create_index("ix_case_entries_case", "case_entries", ["tenant_id", "case_id", "number"])
    op.create_table(
        "predictions",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("scan_id", ID, nullable=True),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("model_name", SHORT, nullable=False),
        sa.Column("model_version", SHORT, nullable=False),
        sa.Column("bundle_digest", SHORT, nullable=False),
        sa.Column("precision", sa.String(length=40), nullable=False),
        sa.Column("dataset_digest", SHORT, nullable=False),
        sa.Column("code_digest", SHORT, nullable=False),
        sa.Column("verdict", sa.String(length=40), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("quality", JSON, nullable=False),
        sa.Column("answer", JSON, nullable=False),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "image_id"],
            ["images.tenant_id", "images.id"],
            name="fk_predictions_tenant_id_image_id",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "scan_id"], ["scans.tenant_id", "scans.id"], name="fk_predictions_tenant_id_scan_id"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_predictions_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_predictions"),
    )
    op.create_index("ix_predictions_bundle", "predictions", ["tenant_id", "bundle_digest"])
    op.create_index("ix_predictions_image", "predictions", ["tenant_id", "image_id"])
    op.create_index("ix_predictions_number", "predictions", ["tenant_id", "number"])
    op.create_index("ix_predictions_scan", "predictions", ["tenant_id", "scan_id"])
    op.create_table(
        "rejections",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("case_id", ID, nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("notes", sa.String(), nullable=True),
        sa.Column("predictions", JSON, nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("by", SHORT, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "case_id"], ["cases.tenant_id", "cases.id"], name="fk_rejections_tenant_id_case_id"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_rejections_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_rejections"),
    )
    op.create_index("ix_rejections_case", "rejections", ["tenant_id", "case_id", "number"])
    op.create_table(
        "labels",
        sa.Column("tenant_id", ID, nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("image_id", ID, nullable=False),
        sa.Column("case_id", ID, nullable=True),
        sa.Column("prediction_id", ID, nullable=True),
        sa.Column("task", SHORT, nullable=False),
        sa.Column("head", SHORT, nullable=False),
        sa.Column("value", SHORT, nullable=True),
        sa.Column("cannot_grade", sa.String(), nullable=True),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("reader", SHORT, nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("withdrawn_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "case_id"], ["cases.tenant_id", "cases.id"], name="fk_labels_tenant_id_case_id"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "image_id"], ["images.tenant_id", "images.id"], name="fk_labels_tenant_id_image_id"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "prediction_id"],
            ["predictions.tenant_id", "predictions.id"],
            name="fk_labels_tenant_id_prediction_id",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_labels_tenant_id"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_labels"),
    )
    op.create_index("ix_labels_case", "labels", ["tenant_id", "case_id"])
    op.create_index("ix_labels_image", "labels", ["tenant_id", "image_id"])
    op.create_index("ix_labels_number", "labels", ["tenant_id", "number"])
    op.create_index("ix_labels_task", "labels", ["tenant_id", "task", "head"])

    for statement in _POSTGRESQL if op.get_context().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """Remove them all, with everything in them."""
    for table in (
        "labels",
        "rejections",
        "predictions",
        "case_entries",
        "scans",
        "cases",
        "images",
        "erased_images",
        "tokens",
        "patients",
        "jobs",
        "idempotency_keys",
        "erasures",
        "blobs",
        "audit_log",
        "audit_heads",
        "tenants",
    ):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_only_grows()")
