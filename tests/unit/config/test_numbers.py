"""A number that a rule of the specification names is what the shipped configuration says."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
N = r"([\d,.]*\d)"
"""A number, with its commas."""

NUMBERS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("LC-92", rf"default {N}", "fsm.yaml", ("limits.max_loopbacks",)),
    ("LC-137", rf"default {N}", "fsm.yaml", ("limits.max_rework",)),
    (
        "LC-130",
        rf"implementing {N} s, arch_reviewing {N} s, qa_testing {N} s",
        "fsm.yaml",
        tuple(f"task_workflow.claim_ttl_s.{state}" for state in ("implementing", "arch_reviewing", "qa_testing")),
    ),
    ("LC-133", rf"\| {N} \| {N} \|", "fsm.yaml", ("task_workflow.limits.0.wait_s", "task_workflow.limits.0.sla_s")),
    ("LC-134", rf"\| {N} \| {N} \|", "fsm.yaml", ("task_workflow.limits.1.wait_s", "task_workflow.limits.1.sla_s")),
    ("LC-135", rf"\| {N} \| {N} \|", "fsm.yaml", ("task_workflow.limits.2.sla_s", "task_workflow.limits.2.sla_s")),
    ("LC-136", rf"\| - \| {N} \|", "fsm.yaml", ("task_workflow.task_sla_s",)),
    ("PL-22", rf"share at least {N} keywords", "planning.yaml", ("derivation.shared_keywords",)),
    ("PL-23", rf"at most {N}, temperature {N}", "planning.yaml", ("derivation.attempts", "derivation.temperature")),
    ("PL-47", rf"default {N} min", "planning.yaml", ("execution.checkpoint_every_s",)),
    ("PL-80", rf"at most {N} rounds", "planning.yaml", ("estimates.max_rounds",)),
    (
        "PL-80",
        r"scale " + ", ".join([N] * 7),
        "planning.yaml",
        tuple(f"estimates.scale.{place}" for place in range(7)),
    ),
    (
        "PL-71",
        rf"default {N} s\), the longest time of a step \(step_max_s, {N} s\)",
        "planning.yaml",
        ("ceremonies.backlog_review.steps.0.timeout_s", "ceremonies.backlog_review.timeouts.step_max_s"),
    ),
    ("CN-4", rf"default {N}", "council.yaml", ("defaults.num_agents",)),
    ("CN-5", rf"default {N}", "council.yaml", ("defaults.rounds",)),
    ("CN-14", rf"default {N}, {N}, {N}", "council.yaml", ("ladder.0", "ladder.1", "ladder.2")),
    ("MB-21", rf"\({N} tokens, {N} s\)", "council.yaml", ("defaults.tokens", "defaults.timeout_seconds")),
    (
        "RG-40",
        rf"total >= {N} `pass`; >= {N} `warn`",
        "rigor.yaml",
        ("verdict.pass", "verdict.warn"),
    ),
    (
        "CX-21",
        rf"min\({N}, {N} \* tasks \+ {N} \* decisions\), base {N} for architect and its profiles, else {N}",
        "context.yaml",
        (
            "budget.max_extra",
            "budget.per_task",
            "budget.per_decision",
            "budget.base.architect",
            "budget.default_base",
        ),
    ),
    ("CX-50", rf"more than {N} steps or {N} tokens", "context.yaml", ("compression.steps", "compression.tokens")),
    ("CX-1", rf"last {N} milestone events", "context.yaml", ("milestones",)),
    (
        "RT-43",
        rf"never \| {N} \| {N} \|",
        "policy.yaml",
        ("shared.run_on_tree.timeout_s", "shared.run_on_tree.output_limit_kb"),
    ),
    ("AP-9", rf"over {N} MiB", "serve.yaml", ("max_body_bytes",)),
)
"""The rule, where its numbers stand in its text, the file, and what says each of them there."""
UNITS = {
    "LC-133": (1, 3600),
    "LC-134": (1, 3600),
    "LC-135": (1, 3600),
    "LC-136": (3600,),
    "PL-47": (60,),
    "AP-9": (1 << 20,),
}
"""What the numbers of a rule are multiplied by, where the file has another unit."""


@cache
def specification() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "spec").glob("*.md")))


def text_of(rule: str) -> str:
    """The rule with the table below it, if it has one."""
    ends = rf"- \*\*|\| {rule[:2]}-\d|## "
    found = re.search(rf"^(?:- \*\*{rule}\*\*|\| {rule} \|)(?:.|\n(?!{ends}))*", specification(), re.M)
    assert found, f"there is no {rule}"
    return found.group()


@cache
def shipped(name: str) -> Any:
    return yaml.safe_load((ROOT / "config" / name).read_text())


def said(name: str, path: str) -> Decimal:
    """What the shipped file says at this path."""
    value = shipped(name)
    for key in path.split("."):
        value = value[int(key) if isinstance(value, list) else key]
    return Decimal(str(value))


@pytest.mark.rule("GL-3")
@pytest.mark.parametrize(
    ("rule", "pattern", "name", "paths"), NUMBERS, ids=[f"{rule} {paths[0]}" for rule, _, _, paths in NUMBERS]
)
def test_number_of_a_rule_is_the_default_of_the_configuration(
    rule: str, pattern: str, name: str, paths: tuple[str, ...]
) -> None:
    numbers = re.search(pattern, text_of(rule))
    assert numbers, f"{rule} does not say {pattern}: {text_of(rule)[:300]}"
    units = UNITS.get(rule, (1,) * len(paths))
    named = [Decimal(n.replace(",", "")) * unit for n, unit in zip(numbers.groups(), units, strict=True)]
    assert named == [said(name, path) for path in paths]


CONSTANTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("EV-6", rf"every {N} events", (("fleet/owner/journal/story_stream.py", r"^SNAPSHOT_EVERY = {}$"),)),
    ("EV-7", rf"MAXLEN ~{N}", (("fleet/log/redis/log.py", r"max_hints: int = {}\b"),)),
    (
        "EV-8",
        rf"MAXLEN ~{N}, TTL {N} s",
        (("fleet/sandbox/redis.py", r"max_lines: int = {}\b"), ("fleet/sandbox/redis.py", r"^_TTL_S = {}$")),
    ),
    (
        "AP-112",
        rf"over {N} KiB per frame or {N} messages/s -> close {N} / {N}\.",
        (
            ("serve_apps/stream/socket.py", r"^MAX_FRAME = {} \* 1024$"),
            ("serve_apps/stream/socket.py", r"^MAX_PER_SECOND = {}$"),
            ("serve_apps/stream/socket.py", r"TOO_LARGE, TOO_MANY = .*\b{}, \d+$"),
            ("serve_apps/stream/socket.py", r"TOO_LARGE, TOO_MANY = .*, {}$"),
        ),
    ),
    ("RC-62", rf"\(first {N}\)", (("fleet/workspace/service/report.py", r"^_MAX_FAILURES = {}$"),)),
)
"""The rule, where its numbers stand in its text, and the constants that no file of config/ has, by module and line."""


@pytest.mark.rule("AP-112", "EV-6", "EV-7", "EV-8", "RC-62")
@pytest.mark.parametrize(("rule", "pattern", "constants"), CONSTANTS, ids=[rule for rule, _, _ in CONSTANTS])
def test_number_of_a_rule_is_the_constant_of_the_code(
    rule: str, pattern: str, constants: tuple[tuple[str, str], ...]
) -> None:
    numbers = re.search(pattern, text_of(rule))
    assert numbers, f"{rule} does not say {pattern}"
    for number, (module, line) in zip(numbers.groups(), constants, strict=True):
        # As it is written in code: 20000, 20,000 and 20_000 are one number.
        digits = "_?".join(number.replace(",", ""))
        assert re.search(line.format(digits), (ROOT / module).read_text(), re.M), f"{rule}: {module} has not {number}"
