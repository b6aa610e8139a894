"""The one composition root: settings and addresses become stores, models and services (STYLE.md 1, rule 7)."""

from fleet.wiring.audit import make_notary, open_auditor, open_loss_desk
from fleet.wiring.council import make_council_shard
from fleet.wiring.desk import make_desk, open_archivist, open_dead_letters, open_desk, open_reports
from fleet.wiring.endpoints import AuditPlaces, Endpoints, audit_places, load_definitions, load_principals
from fleet.wiring.projection import make_projector, open_projector
from fleet.wiring.secrets import make_secret_broker
from fleet.wiring.services import (
    SandboxParts,
    make_context_service,
    make_forge,
    make_role_agent,
    make_sandbox_parts,
    make_supervisor,
)
from fleet.wiring.stores import make_blobs, make_graph, make_witness

__all__ = [
    "AuditPlaces",
    "Endpoints",
    "SandboxParts",
    "audit_places",
    "load_definitions",
    "load_principals",
    "make_blobs",
    "make_context_service",
    "make_council_shard",
    "make_desk",
    "make_forge",
    "make_graph",
    "make_notary",
    "make_projector",
    "make_role_agent",
    "make_sandbox_parts",
    "make_secret_broker",
    "make_supervisor",
    "make_witness",
    "open_archivist",
    "open_auditor",
    "open_dead_letters",
    "open_desk",
    "open_loss_desk",
    "open_projector",
    "open_reports",
]
