"""Values of a report in words."""

from __future__ import annotations

import json

from fleet.events.values import Json
from fleet.report.councils import CouncilSummary

__all__ = ["counterfactuals", "seat"]


def seat(member_id: str, proposes: bool, votes: bool, writes_tests: bool) -> str:
    """A member of a council, and what it may do there."""
    parts = [name for name, on in (("drafts", proposes), ("votes", votes), ("writes tests", writes_tests)) if on]
    return f"{member_id} ({', '.join(parts) or 'watches'})"


def counterfactuals(council: CouncilSummary) -> str:
    """Whom each simpler rule would have chosen."""
    return ", ".join(f"{k}: {_counterfactual(v)}" for k, v in sorted(council.counterfactuals.items())) or "-"


def _counterfactual(value: Json) -> str:
    match value:
        case {"candidate_id": name, "gates_ok": ok, "trusted_passed": passed, "trusted_total": total}:
            return f"{name} ({'passes' if ok else 'fails'} the gates, {passed} of {total} trusted tests)"
        case {"candidate_id": name}:
            return f"{name} (not measured)"
        case _:
            return _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
