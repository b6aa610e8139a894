"""The one composition root: settings and addresses become stores, models and services.

Source: docs/design/style.md, section 1, rule 7.
"""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.wiring.audit import NotaryParts, make_notary_parts, open_auditor, open_loss_desk
    from fleet.wiring.blob_store import check_blob_keys, check_blobs_answer, check_blobs_reach
    from fleet.wiring.change_requests import (
        change_target,
        check_forge,
        hosted_change_requests,
        make_change_requests,
    )
    from fleet.wiring.chat_desk import make_chat_desk
    from fleet.wiring.contexts import make_context_service, make_context_statistics, make_rehydrator
    from fleet.wiring.council import CouncilParts, make_council_parts, make_council_shard
    from fleet.wiring.deploying import check_deployments, deploy_targets, make_deployment_desk, make_deployments
    from fleet.wiring.desk import (
        make_audit_desk,
        make_budget_desk,
        make_coach_desk,
        make_consumers,
        make_dead_letters,
        make_decision_desk,
        make_desk,
        make_gate_desk,
        make_platform_desk,
        make_story_desk,
        make_tool_desk,
        open_archivist,
        open_budget_desk,
        open_dead_letters,
        open_desk,
        open_platform_desk,
        open_reports,
    )
    from fleet.wiring.endpoints import AuditPlaces, Endpoints, audit_places, load_definitions, load_principals
    from fleet.wiring.knowledge import make_knowledge
    from fleet.wiring.notifications import check_notifications, open_notifier, tell_target
    from fleet.wiring.plugins import active_policy, active_roles, find_plugins
    from fleet.wiring.projection import make_projector, open_projector
    from fleet.wiring.projects import make_project_desk
    from fleet.wiring.secrets import make_secret_broker, open_access_trail, recorded_accesses
    from fleet.wiring.services import (
        SandboxParts,
        make_forge,
        make_role_agent,
        make_sandbox_parts,
        make_sessions,
        make_supervisor,
        remove_abandoned,
    )
    from fleet.wiring.stores import make_blobs, make_graph, make_witness
    from fleet.wiring.tools import make_node_toolbox, make_toolbox
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "check_deployments",
    "deploy_targets",
    "make_deployment_desk",
    "make_deployments",
    "AuditPlaces",
    "CouncilParts",
    "Endpoints",
    "SandboxParts",
    "active_policy",
    "active_roles",
    "audit_places",
    "change_target",
    "check_blob_keys",
    "check_blobs_answer",
    "check_blobs_reach",
    "check_forge",
    "find_plugins",
    "hosted_change_requests",
    "load_definitions",
    "load_principals",
    "make_audit_desk",
    "make_blobs",
    "make_budget_desk",
    "make_change_requests",
    "make_chat_desk",
    "make_coach_desk",
    "make_consumers",
    "make_context_service",
    "make_context_statistics",
    "make_council_parts",
    "make_council_shard",
    "make_dead_letters",
    "make_decision_desk",
    "make_desk",
    "make_forge",
    "make_gate_desk",
    "make_graph",
    "make_knowledge",
    "make_node_toolbox",
    "NotaryParts",
    "make_notary_parts",
    "make_platform_desk",
    "make_project_desk",
    "check_notifications",
    "open_notifier",
    "tell_target",
    "make_projector",
    "make_rehydrator",
    "make_role_agent",
    "make_sandbox_parts",
    "make_secret_broker",
    "make_sessions",
    "make_story_desk",
    "make_supervisor",
    "make_tool_desk",
    "make_toolbox",
    "make_witness",
    "open_access_trail",
    "open_archivist",
    "open_auditor",
    "open_budget_desk",
    "open_dead_letters",
    "open_desk",
    "open_loss_desk",
    "open_platform_desk",
    "open_projector",
    "open_reports",
    "recorded_accesses",
    "remove_abandoned",
]
