"""How large a fleet has to be for so many stories an hour. Pure."""

from fleet.capacity.measured import MEASURED, Measured, MeasuredFigures
from fleet.capacity.plan import CapacityPlan, Load, Share, plan_capacity
from fleet.capacity.queueing import mean_wait_s
from fleet.capacity.workload import Workload

__all__ = [
    "MEASURED",
    "CapacityPlan",
    "Load",
    "Measured",
    "MeasuredFigures",
    "Share",
    "Workload",
    "mean_wait_s",
    "plan_capacity",
]
