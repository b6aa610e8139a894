"""What all actors of a fleet are to Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.remote.resolver import NAMESPACE

COMMON: Mapping[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    # An unknown outcome is never repeated by Ray: repeats carry a command id or a run key and come from us.
    "max_task_retries": 0,
    "lifetime": "detached",
    "namespace": NAMESPACE,
    "get_if_exists": True,
}
