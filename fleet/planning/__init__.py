"""Planning: story content and coach, task derivation, the plan graph, estimates."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.planning.backlog_review import (
        REVIEWABLE,
        BacklogReview,
        PlanOutlineTask,
        PoDecision,
        check_stories,
        next_status,
        read_decision,
        review_form,
        review_unit,
    )
    from fleet.planning.coach import CoachDimension, Finding, FindingCode, StoryScore, score_story
    from fleet.planning.coach_config import CoachConfig, CoachLimits, CoachWeights, LanguageBlock, StoryTemplates
    from fleet.planning.content import StoryText, check_content, content_digest
    from fleet.planning.discovery import (
        DiscoveryProposal,
        OpenQuestion,
        ProposedEpic,
        ProposedStory,
        Requirement,
        discover,
        discovery_schema,
        read_proposal,
        requirements_text,
        with_answers,
    )
    from fleet.planning.estimates import AnotherRound, Estimated, NoEstimate, close_estimate_round, median_on_scale
    from fleet.planning.execution import (
        Obstacle,
        PlanBlocker,
        is_plan_complete,
        plan_blockers,
        ready_tasks,
        startable_tasks,
    )
    from fleet.planning.graph import (
        PlanEdge,
        PlanLayers,
        PlanNode,
        critical_path,
        find_cycle,
        plan_layers,
        remaining_hours,
        validate_graph,
    )
    from fleet.planning.paths import is_repository_glob, paths_overlap
    from fleet.planning.planning_config import (
        Bounds,
        CeremonyConfig,
        DerivationConfig,
        EstimateConfig,
        ExecutionConfig,
        PlanningConfig,
    )
    from fleet.planning.platform_state import PLATFORM, FleetPause, PlatformState, StandingDelegation, fold_platform
    from fleet.planning.problem import Problem, ProblemCode
    from fleet.planning.project_state import (
        DEFAULT_EPIC,
        DEFAULT_PROJECT,
        Ceremony,
        Discovery,
        Epic,
        ProjectState,
        fold_project,
    )
    from fleet.planning.project_text import EpicChanges, EpicText, ProjectChanges, ProjectText, RepoText, read_text
    from fleet.planning.refine import RefineChange, RefinedStory, keeps_every_character, refine_story
    from fleet.planning.suggest import StorySuggestion, check_goal, choose_suggestion, suggest_story
    from fleet.planning.task_blocks import ParsedBlocks, parse_task_blocks, validate_task_blocks
    from fleet.planning.tasks import (
        TASK_KINDS,
        DerivedDependency,
        DerivedPlan,
        DerivedTask,
        TaskKind,
        derivation_schema,
        validate_derivation,
    )
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "REVIEWABLE",
    "DEFAULT_EPIC",
    "DEFAULT_PROJECT",
    "TASK_KINDS",
    "AnotherRound",
    "BacklogReview",
    "Bounds",
    "Ceremony",
    "CeremonyConfig",
    "CoachConfig",
    "CoachDimension",
    "CoachLimits",
    "CoachWeights",
    "DerivationConfig",
    "DerivedDependency",
    "DerivedPlan",
    "DerivedTask",
    "Discovery",
    "DiscoveryProposal",
    "Epic",
    "EpicChanges",
    "EpicText",
    "EstimateConfig",
    "Estimated",
    "ExecutionConfig",
    "Finding",
    "FindingCode",
    "LanguageBlock",
    "NoEstimate",
    "Obstacle",
    "OpenQuestion",
    "ParsedBlocks",
    "PlanBlocker",
    "PlanEdge",
    "PlanLayers",
    "PlanNode",
    "PlanOutlineTask",
    "PlanningConfig",
    "PoDecision",
    "Problem",
    "ProblemCode",
    "ProjectChanges",
    "ProjectState",
    "ProjectText",
    "ProposedEpic",
    "ProposedStory",
    "RefineChange",
    "RefinedStory",
    "RepoText",
    "Requirement",
    "StoryScore",
    "StorySuggestion",
    "StoryTemplates",
    "StoryText",
    "TaskKind",
    "check_content",
    "check_goal",
    "check_stories",
    "choose_suggestion",
    "close_estimate_round",
    "content_digest",
    "critical_path",
    "derivation_schema",
    "discover",
    "discovery_schema",
    "find_cycle",
    "fold_project",
    "is_plan_complete",
    "is_repository_glob",
    "keeps_every_character",
    "median_on_scale",
    "next_status",
    "parse_task_blocks",
    "paths_overlap",
    "plan_blockers",
    "plan_layers",
    "read_decision",
    "read_proposal",
    "read_text",
    "ready_tasks",
    "refine_story",
    "remaining_hours",
    "requirements_text",
    "review_form",
    "review_unit",
    "score_story",
    "startable_tasks",
    "suggest_story",
    "validate_derivation",
    "validate_graph",
    "validate_task_blocks",
    "with_answers",
    "PLATFORM",
    "FleetPause",
    "PlatformState",
    "StandingDelegation",
    "fold_platform",
]
