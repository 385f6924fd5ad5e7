"""What the registry knows about one version, without touching its files."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.files import canonical_json

from .page import scalar_metrics

if TYPE_CHECKING:
    from serving.core.bundle import Bundle

CHAMPION = "champion"
PREVIOUS = "previous"
CHALLENGER = "challenger"
APPROVED = "approved_by"  # a tag: who


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a task's model in MLflow."""

    task: str
    version: str
    digest: str  # of its bundle
    run_id: str
    created_at: str  # UTC, ISO 8601
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, item: Any, aliases: Mapping[str, str]) -> Version:
        """From MLflow's own, with the task's aliases."""
        number = str(item.version)
        tags = {str(key): str(value) for key, value in item.tags.items()}
        created = dt.datetime.fromtimestamp(item.creation_timestamp / 1000, dt.UTC)
        return cls(
            task=item.name,
            version=number,
            digest=tags.get("digest", ""),
            run_id=item.run_id or "",
            created_at=created.isoformat(timespec="seconds"),
            aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
            tags=tags,
        )

    @property
    def dataset_digest(self) -> str:
        """The data that it learned from."""
        return self.tags.get("dataset_digest", "")

    @property
    def test_digest(self) -> str:
        """The test images and labels that it was judged on."""
        return self.tags.get("test_digest", "")

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Test metrics: ``{head: {metric: {"value", "low", "high"}}}``; empty where they aren't readable."""
        try:
            found = json.loads(self.tags.get("metrics", "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def decision(self) -> str:
        """The gate's last word: ``accept``, ``refuse``, or empty where it hasn't judged."""
        return self.tags.get("gate.decision", "")

    @property
    def pending_approval(self) -> bool:
        """Whether only a person's approval is missing."""
        return self.tags.get("gate.pending_approval") == "true" and not self.approved_by

    @property
    def approved_by(self) -> str:
        """Who approved it; empty where nobody did. The tag may be set in MLflow's page as well."""
        return self.tags.get(APPROVED, "").strip()

    @property
    def origin(self) -> str:
        """``trained`` or ``imported``."""
        return self.tags.get("origin", "trained")

    def to_dict(self) -> dict[str, Any]:
        """JSON's own types, for ``--json``."""
        return {
            "task": self.task,
            "version": self.version,
            "digest": self.digest,
            "run_id": self.run_id,
            "created_at": self.created_at,
            "aliases": list(self.aliases),
            "origin": self.origin,
            "dataset_digest": self.dataset_digest,
            "test_digest": self.test_digest,
            "metrics": self.metrics,
            "gate": {
                "decision": self.decision or None,
                "pending_approval": self.pending_approval,
                "approved_by": self.approved_by or None,
            },
            "tags": {key: value for key, value in sorted(self.tags.items()) if key != "metrics"},
        }


def tags_of(bundle: Bundle) -> dict[str, str]:
    """The tags of a bundle's version: enough to list and compare versions without their files."""
    card = bundle.card
    return {
        "digest": bundle.digest,
        "dataset_digest": card.dataset.digest,
        "test_digest": card.dataset.test_digest,
        "code_digest": card.code_digest,
        "preprocessing_digest": card.preprocessing_digest,
        "retiderm_version": card.retiderm_version,
        "backbone": card.backbone,
        "source": card.dataset.source,
        "licence": card.licence,
        "forbids": ",".join(card.forbids),
        "synthetic": str(card.dataset.synthetic).lower(),
        "metrics": canonical_json(scalar_metrics(card.metrics)),
    }
