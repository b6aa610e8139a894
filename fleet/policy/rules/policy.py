"""Whether a tool call may happen: one pure decision with rule id, policy digest and obligations (RT-30..RT-35)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fleet.kernel.errors import ApprovalRequired, PolicyDenied
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import Phase, Rigor
from fleet.policy.arguments import host_of, texts_of
from fleet.policy.capabilities import ArgSpec, ToolGate
from fleet.policy.commands.git import parse_git_address
from fleet.policy.rules.calls import (
    Allowed,
    ApprovalRecord,
    CallFacts,
    Denied,
    NeedsApproval,
    Obligations,
    ToolCall,
    request_digest,
)
from fleet.policy.rules.checks import CHECKS, CallCase, Refusal, open_case
from fleet.policy.rules.config import Policy

_RIGORS: tuple[Rigor, ...] = ("L0", "L1", "L2", "L3")
_RISKS = ("low", "medium", "high")
_CLOCK_SKEW_MS = 60_000
"""Between the clock that recorded a yes and ours."""


def decide(
    call: ToolCall, facts: CallFacts, *, policy: Policy, approvals: Iterable[ApprovalRecord] = (), now_ms: int
) -> Allowed | NeedsApproval | Denied:
    """Whether the call may happen; the first failing step of RT-30 decides, and what nothing allows is denied.

    Args:
        approvals: what the story has on record for tool gates; nothing that the caller sent.
        now_ms: UTC milliseconds since the Unix epoch.

    Returns:
        Always the same for the same arguments and the same `policy.digest` (RT-31).
    """
    digest, subject = policy.digest, request_digest(call, facts)
    case = open_case(call, facts, policy)
    if isinstance(case, Refusal):
        return _denied(case, digest, subject)
    for check in CHECKS:
        if refusal := check(case):
            return _denied(refusal, digest, subject)
    rule, ask = _deciding_rule(case)
    if facts.used_up:
        return _denied(Refusal("budget_exceeded", facts.used_up), digest, subject)
    consumes: EntityId | None = None
    if ask is not None:
        consent = _consent(case, ask.gate, subject, list(approvals), now_ms)
        if isinstance(consent, Refusal):
            return _denied(consent, digest, subject)
        if consent is None or consent.status != "granted":
            return NeedsApproval(
                rule_id=ask.rule_id,
                policy_digest=digest,
                request_digest=subject,
                reason=ask.reason,
                gate=ask.gate,
                approval_id=consent.approval_id if consent else None,
            )
        consumes = consent.approval_id
    if facts.epoch != facts.current_epoch:
        stale = f"epoch {facts.epoch} is over, the story is at {facts.current_epoch}"
        return _denied(Refusal("epoch_stale", stale), digest, subject)
    return Allowed(
        rule_id=rule,
        policy_digest=digest,
        request_digest=subject,
        reason="allowed with a recorded approval" if consumes else "allowed",
        obligations=_obligations(case, consumes),
    )


def decide_step(
    tool: str,
    op: str,
    *,
    principal: Principal,
    role: str,
    phase: Phase,
    policy: Policy,
    args: Mapping[str, Any] | None = None,
    tree: Digest | None = None,
    environment: str | None = None,
    rigor: Rigor = "L3",
    approvals: Iterable[ApprovalRecord] = (),
    now_ms: int,
) -> Allowed | NeedsApproval | Denied:
    """As `decide`, for a step that the product's own journal starts in the name of a seat.

    Such a step needs a rule of origin `product` instead of the role's allowlist. Claims, paths and argument types are
    those of the product's own code; rules see `args`. Log and ledger check the epoch themselves.
    """
    facts = CallFacts(
        principal=principal,
        is_enabled=True,
        role=role,
        roles_held=frozenset({role}),
        phase=phase,
        story="active",
        rigor=rigor,
        epoch=0,
        current_epoch=0,
        origin="product",
        tree=tree,
        environment=environment,
    )
    call = ToolCall(tool=tool, op=op, args=dict(args or {}))
    return decide(call, facts, policy=policy, approvals=approvals, now_ms=now_ms)


def obligations_of(
    call: ToolCall, facts: CallFacts, *, policy: Policy, consumes: EntityId | None = None
) -> Obligations:
    """The obligations of a call whose decision is on record, for whoever has to carry it out again.

    Raises:
        PolicyDenied: principal, role or operation are not there any more.
    """
    case = open_case(call, facts, policy)
    if isinstance(case, Refusal):
        raise PolicyDenied(
            f"{case.reason} (rule {case.rule_id})", rule_id=case.rule_id, policy_digest=str(policy.digest)
        )
    return _obligations(case, consumes)


def enforce(decision: Allowed | NeedsApproval | Denied) -> Allowed:
    """The decision itself when the call may start.

    Raises:
        ApprovalRequired: a person has to say yes first; details name gate, request digest and approval id.
        PolicyDenied: refused; details name rule and policy digest.
    """
    match decision:
        case Allowed():
            return decision
        case NeedsApproval():
            raise ApprovalRequired(
                f"{decision.reason}: a person in role {decision.gate.role} has to approve gate "
                f"{decision.gate.name} for request {decision.request_digest} first",
                rule_id=decision.rule_id,
                policy_digest=str(decision.policy_digest),
                gate=decision.gate.name,
                role=decision.gate.role,
                request_digest=str(decision.request_digest),
                approval_id=decision.approval_id,
            )
        case Denied():
            raise PolicyDenied(
                f"{decision.reason} (rule {decision.rule_id}): ask for something else, or change config/policy.yaml",
                rule_id=decision.rule_id,
                policy_digest=str(decision.policy_digest),
                request_digest=str(decision.request_digest),
            )


def _denied(refusal: Refusal, policy: Digest, subject: Digest) -> Denied:
    return Denied(rule_id=refusal.rule_id, policy_digest=policy, request_digest=subject, reason=refusal.reason)


class _Ask(NamedTuple):
    rule_id: str
    gate: ToolGate
    reason: str


def _deciding_rule(case: CallCase) -> tuple[str, _Ask | None]:
    """The rule that lets the call through, and the consent that it needs."""
    capability, args = case.capability, case.call.args
    allowing = next(rule for rule in case.rules("allow") if rule.holds(args))
    if asking := [rule for rule in case.rules("ask") if rule.holds(args)]:
        # Of several rules that ask, the one that sees the highest risk says who may answer.
        gate = max((capability.gate(risk=rule.risk) for rule in asking), key=lambda g: _RISKS.index(g.risk))
        first = asking[0]
        return allowing.id, _Ask(first.id, gate, first.reason or f"{capability.name} asks first")
    if capability.declared.approval == "always":
        return allowing.id, _Ask(allowing.id, capability.gate(), f"{capability.name} always needs an approval")
    return allowing.id, None


def _consent(
    case: CallCase, gate: ToolGate, subject: Digest, approvals: list[ApprovalRecord], now_ms: int
) -> ApprovalRecord | Refusal | None:
    """The grant that holds now, else the request that waits, else None; a refusal when a person said no."""
    about = [a for a in approvals if a.gate == gate.name and a.subject == subject]
    if valid := next((a for a in about if _is_valid(case, gate, a, now_ms)), None):
        return valid
    if about and about[-1].status == "rejected":
        return Refusal("approval_rejected", f"a person refused this call of {case.capability.name}")
    return next((a for a in reversed(about) if a.status == "requested"), None)


def _is_valid(case: CallCase, gate: ToolGate, record: ApprovalRecord, now_ms: int) -> bool:
    """Whether a recorded grant opens the gate now (LC-70..LC-77)."""
    if record.status != "granted" or record.is_consumed or record.principal is None or record.as_role != gate.role:
        return False
    # A grant that would hold longer than one for a tool call may was not minted for this gate.
    if not now_ms < record.expires_at_ms <= now_ms + gate.grant_ttl_s * 1000 + _CLOCK_SKEW_MS:
        return False
    rigor = _RIGORS.index(case.facts.rigor)
    is_own = record.principal == case.facts.principal
    if record.is_delegated:
        limit = gate.delegable_up_to
        return limit is not None and rigor <= _RIGORS.index(limit) and not is_own
    return record.principal.is_human and not (is_own and case.facts.rigor == "L3")


def _obligations(case: CallCase, consumes: EntityId | None) -> Obligations:
    declared, args = case.capability.declared, case.call.args
    specs = case.capability.args
    hosts = [
        _host(spec, text)
        for name, spec in specs.items()
        if spec.target in ("host", "repository")
        for text in texts_of(args.get(name))
    ]
    return Obligations(
        is_recorded=declared.side_effects != "none" or case.capability.is_write,
        effect=declared.effect,
        timeout_s=declared.timeout_s,
        output_limit_kb=declared.output_limit_kb,
        hosts=tuple(sorted({host for host in hosts if host})) if declared.network == "allow_list" else (),
        confine=tuple(n for n, spec in specs.items() if spec.type in ("path", "paths") and n in args),
        write_paths=tuple(sorted(case.grant.write_paths)) if case.capability.is_write else (),
        preconditions=declared.preconditions,
        postconditions=declared.postconditions,
        consumes=consumes,
    )


def _host(spec: ArgSpec, text: str) -> str | None:
    if spec.target == "repository":
        return parse_git_address(text).authority
    return host_of(text) if spec.type == "url" else text.lower()
