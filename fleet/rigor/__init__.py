"""Rigor: what was measured on a tree, how strict the level is, and the verdict that follows."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.rigor.evidence import E2eDeclaration, FlakyTests, find_flaky, is_inconsistent
    from fleet.rigor.gates import GateResult
    from fleet.rigor.levels import (
        DIMENSIONS,
        LEVELS,
        Dimension,
        GateName,
        LevelConfig,
        Rigor,
        RigorConfig,
        StaticGate,
        check_rigor,
        rigor_from_alias,
    )
    from fleet.rigor.report import (
        BuildSection,
        CoverageSection,
        LintSection,
        PatchSection,
        PullRequest,
        SecuritySection,
        SonarResult,
        StageName,
        StageRun,
        StageStatus,
        StaticSection,
        TestFailure,
        TestSection,
        Timings,
        ToolRun,
        WorkspaceReport,
        parse_report,
        settle_stage,
        static_gate,
    )
    from fleet.rigor.verdict import DimensionResult, Verdict, Waiver, WorkspaceScore, active_waivers, score_workspace
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "DIMENSIONS",
    "LEVELS",
    "BuildSection",
    "CoverageSection",
    "Dimension",
    "DimensionResult",
    "E2eDeclaration",
    "FlakyTests",
    "GateName",
    "GateResult",
    "LevelConfig",
    "LintSection",
    "PatchSection",
    "PullRequest",
    "Rigor",
    "RigorConfig",
    "SecuritySection",
    "SonarResult",
    "StageName",
    "StageRun",
    "StageStatus",
    "StaticGate",
    "StaticSection",
    "TestFailure",
    "TestSection",
    "Timings",
    "ToolRun",
    "Verdict",
    "Waiver",
    "WorkspaceReport",
    "WorkspaceScore",
    "active_waivers",
    "check_rigor",
    "find_flaky",
    "is_inconsistent",
    "parse_report",
    "rigor_from_alias",
    "score_workspace",
    "settle_stage",
    "static_gate",
]
