"""The solve benchmark: tasks, token budgets, rows and what they allow to claim (pure)."""

from fleet.council.bench.meter import MeteredCall, TokenMeter
from fleet.council.bench.row import (
    ARMS,
    Arm,
    ArmLine,
    ArmName,
    BenchRow,
    EndShare,
    Pick,
    StageGain,
    arm_lines,
    end_shares,
    parse_arms,
    stage_gains,
)
from fleet.council.bench.statistics import (
    Interval,
    PairedDifference,
    bootstrap_difference,
    mcnemar_p,
    paired_difference,
    wilson_interval,
)
from fleet.council.bench.task import SOLUTION, BenchTask, HiddenTests, SolveTask

__all__ = [
    "ARMS",
    "SOLUTION",
    "Arm",
    "ArmLine",
    "ArmName",
    "BenchRow",
    "BenchTask",
    "EndShare",
    "HiddenTests",
    "Interval",
    "MeteredCall",
    "PairedDifference",
    "Pick",
    "SolveTask",
    "StageGain",
    "TokenMeter",
    "arm_lines",
    "bootstrap_difference",
    "end_shares",
    "mcnemar_p",
    "paired_difference",
    "parse_arms",
    "stage_gains",
    "wilson_interval",
]
