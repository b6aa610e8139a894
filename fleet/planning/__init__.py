"""Planning: story content and coach, task derivation, the plan graph, estimates."""

from fleet.planning.coach import CoachDimension, Finding, FindingCode, StoryScore, score_story
from fleet.planning.coach_config import CoachConfig, CoachLimits, CoachWeights, LanguageBlock, StoryTemplates
from fleet.planning.content import StoryText, check_content, content_digest
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
from fleet.planning.problem import Problem, ProblemCode
from fleet.planning.refine import RefineChange, RefinedStory, keeps_every_character, refine_story
from fleet.planning.suggest import StorySuggestion, choose_suggestion, suggest_story
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

__all__ = [
    "TASK_KINDS",
    "AnotherRound",
    "Bounds",
    "CeremonyConfig",
    "CoachConfig",
    "CoachDimension",
    "CoachLimits",
    "CoachWeights",
    "DerivationConfig",
    "DerivedDependency",
    "DerivedPlan",
    "DerivedTask",
    "EstimateConfig",
    "Estimated",
    "ExecutionConfig",
    "Finding",
    "FindingCode",
    "LanguageBlock",
    "NoEstimate",
    "Obstacle",
    "ParsedBlocks",
    "PlanBlocker",
    "PlanEdge",
    "PlanLayers",
    "PlanNode",
    "PlanningConfig",
    "Problem",
    "ProblemCode",
    "RefineChange",
    "RefinedStory",
    "StoryScore",
    "StorySuggestion",
    "StoryTemplates",
    "StoryText",
    "TaskKind",
    "check_content",
    "choose_suggestion",
    "close_estimate_round",
    "content_digest",
    "critical_path",
    "derivation_schema",
    "find_cycle",
    "is_plan_complete",
    "is_repository_glob",
    "keeps_every_character",
    "median_on_scale",
    "parse_task_blocks",
    "paths_overlap",
    "plan_blockers",
    "plan_layers",
    "ready_tasks",
    "refine_story",
    "remaining_hours",
    "score_story",
    "startable_tasks",
    "suggest_story",
    "validate_derivation",
    "validate_graph",
    "validate_task_blocks",
]
