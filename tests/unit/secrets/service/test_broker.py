"""The broker: grant first, short life, one audit line per use, redaction, and no value in what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import InvalidInput, NotFound, PolicyDenied, StoreUnavailable
from fleet.policy.secret_grants import SecretAccess, SecretGrant, SecretPolicy
from fleet.redaction.known_values import KNOWN_SECRET
from fleet.secrets.memory import MemorySecrets
from fleet.secrets.port import SecretValue
from fleet.secrets.service import KnownSecrets, SecretBroker
from tests.support.secret_places import leaks

NOW = 1_700_000_000_000
GRANTS = tuple(
    SecretGrant(secret=name, roles=frozenset({"devops"}), tool="kubectl", ops=frozenset({"apply"}))
    for name in ("deploy-token", "other", "homeless")
)


class Bench:
    """One broker over secrets in memory, and everything that it leaves behind."""

    def __init__(self, *, max_life_s: int = 300) -> None:
        self.secrets = MemorySecrets("vault", ttl_s=60)
        self.secrets.put("deploy-token", "first-value")
        self.clock = MemoryClock(NOW)
        self.known = KnownSecrets()
        self.lines: list[SecretAccess] = []
        self.audit_fails = False
        self.broker = SecretBroker(
            {"deploy-token": self.secrets, "other": self.secrets},
            SecretPolicy(grants=GRANTS),
            clock=self.clock,
            record=self.record,
            known_secrets=self.known,
            max_life_s=max_life_s,
        )

    async def record(self, line: SecretAccess) -> None:
        if self.audit_fails:
            raise StoreUnavailable("the log is down")
        await asyncio.sleep(0)
        self.lines.append(line)

    async def resolve(self, name: str = "deploy-token", *, role: str = "devops", op: str = "apply") -> SecretValue:
        return await self.broker.resolve(name, as_role=role, tool="kubectl", op=op)

    @property
    def outcomes(self) -> list[str]:
        return [line.outcome for line in self.lines]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.rule("RT-65")
async def test_granted_use_gets_the_value_and_leaves_one_audit_line(bench: Bench) -> None:
    value = await bench.resolve()

    assert value.reveal() == "first-value"
    assert bench.secrets.resolved == ["devops kubectl.apply deploy-token"]
    assert bench.lines == [
        SecretAccess(
            name="deploy-token",
            provider="vault",
            role="devops",
            tool="kubectl",
            op="apply",
            outcome="resolved",
            version="1",
            at_ms=NOW,
        )
    ]


@pytest.mark.parametrize(("role", "op"), [("developer", "apply"), ("devops", "delete"), ("deployer", "apply")])
async def test_use_without_grant_is_denied_before_the_provider_is_asked(bench: Bench, role: str, op: str) -> None:
    await bench.resolve()

    with pytest.raises(PolicyDenied) as caught:
        await bench.resolve(role=role, op=op)

    assert caught.value.details["rule_id"] == "RT-65"
    assert len(bench.secrets.resolved) == 1
    assert bench.outcomes == ["resolved", "denied"]
    assert (bench.lines[1].role, bench.lines[1].op, bench.lines[1].error) == (role, op, "policy_denied")


async def test_denial_does_not_tell_whether_the_secret_exists(bench: Bench) -> None:
    with pytest.raises(PolicyDenied) as known:
        await bench.resolve("deploy-token", role="qa")
    with pytest.raises(PolicyDenied) as unknown:
        await bench.resolve("nobody-has-it", role="qa")

    assert known.value.message.replace("deploy-token", "nobody-has-it") == unknown.value.message


@pytest.mark.parametrize("name", ["Hunter2!", "two words", ""])
async def test_text_that_is_no_name_is_refused_and_not_recorded(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bench.resolve(name)

    assert not name or name not in caught.value.message
    assert bench.lines == []


async def test_value_is_kept_for_its_life_and_then_read_again(bench: Bench) -> None:
    await bench.resolve()
    bench.secrets.put("deploy-token", "second-value")
    bench.clock.advance(59.9)
    assert (await bench.resolve()).reveal() == "first-value"
    bench.clock.advance(0.1)

    rotated = await bench.resolve()

    assert (rotated.reveal(), rotated.version) == ("second-value", "2")
    assert bench.outcomes == ["resolved", "cached", "resolved"]
    assert [line.version for line in bench.lines] == ["1", "1", "2"]


async def test_step_of_the_wall_clock_does_not_lengthen_a_life(bench: Bench) -> None:
    await bench.resolve()
    bench.clock.step_wall(-3600)
    bench.clock.advance(60)

    await bench.resolve()

    assert bench.outcomes == ["resolved", "resolved"]


async def test_bound_of_the_broker_cuts_the_life_that_a_provider_allows() -> None:
    bench = Bench(max_life_s=5)
    await bench.resolve()
    bench.clock.advance(5)

    await bench.resolve()

    assert bench.outcomes == ["resolved", "resolved"]


async def test_provider_that_fails_after_the_life_ended_is_an_error_and_no_old_value(bench: Bench) -> None:
    await bench.resolve()
    bench.clock.advance(60)
    bench.secrets.failure = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await bench.resolve()

    assert bench.outcomes == ["resolved", "failed"]
    assert (bench.lines[1].error, bench.lines[1].version) == ("store_unavailable", None)


async def test_source_that_refuses_and_secret_that_is_missing_are_told_apart(bench: Bench) -> None:
    bench.secrets.failure = PolicyDenied("no")
    with pytest.raises(PolicyDenied):
        await bench.resolve()
    bench.secrets.failure = None
    with pytest.raises(NotFound):
        await bench.resolve("other")
    with pytest.raises(NotFound, match="config/secrets.yaml"):
        await bench.resolve("homeless")

    assert bench.outcomes == ["denied", "not_found", "not_found"]
    assert [line.provider for line in bench.lines] == ["vault", "vault", None]


async def test_forgotten_value_is_read_again(bench: Bench) -> None:
    await bench.resolve()
    bench.broker.forget("deploy-token")
    bench.broker.forget("never-seen")

    await bench.resolve()

    assert bench.outcomes == ["resolved", "resolved"]


async def test_uses_at_one_time_ask_the_provider_once(bench: Bench) -> None:
    values = await asyncio.gather(*(bench.resolve() for _ in range(8)))

    assert {value.reveal() for value in values} == {"first-value"}
    assert len(bench.secrets.resolved) == 1
    assert bench.outcomes == ["resolved", *["cached"] * 7]


async def test_no_value_without_its_audit_line(bench: Bench) -> None:
    bench.audit_fails = True
    with pytest.raises(StoreUnavailable, match="log is down"):
        await bench.resolve()
    bench.audit_fails = False

    await bench.resolve()

    assert bench.outcomes == ["resolved"], "what could not be recorded was not kept either"


@pytest.mark.rule("CX-60")
async def test_resolved_values_are_taken_out_of_excerpts_also_after_rotation(bench: Bench) -> None:
    await bench.resolve()
    bench.secrets.put("deploy-token", "second-value")
    bench.clock.advance(60)
    await bench.resolve()

    redacted = bench.known.redact("was first-value, is second-value")

    assert redacted == (f"was {KNOWN_SECRET}, is {KNOWN_SECRET}", 2)
    assert bench.known.longest >= len("second-value")
    assert "value" not in repr(bench.known)


async def test_old_values_are_known_for_eight_rotations(bench: Bench) -> None:
    for number in range(10):
        bench.secrets.put("deploy-token", f"rotated-{number}")
        bench.broker.forget("deploy-token")
        await bench.resolve()

    assert bench.known.redact("rotated-0 rotated-1 rotated-2").text == f"rotated-0 rotated-1 {KNOWN_SECRET}"


async def test_value_too_short_to_be_redacted_is_refused(bench: Bench) -> None:
    bench.secrets.put("deploy-token", "12345")

    with pytest.raises(PolicyDenied, match="fewer than 6") as caught:
        await bench.resolve()

    assert leaks(caught.value, "12345") == []
    assert bench.outcomes == ["denied"]
    assert bench.known.redact("12345").text == "12345"
    assert bench.known.longest == 0


async def test_arguments_are_resolved_by_place_and_stay_as_they_are(bench: Bench) -> None:
    arguments = {"headers": {"Authorization": "secret://deploy-token"}, "note": "uses secret://deploy-token here"}
    before = json.dumps(arguments)

    values = await bench.broker.resolve_arguments(arguments, as_role="devops", tool="kubectl", op="apply")  # pyright: ignore[reportArgumentType]

    assert {pointer: value.reveal() for pointer, value in values.items()} == {"/headers/Authorization": "first-value"}
    assert json.dumps(arguments) == before


@pytest.mark.rule("RT-65")
async def test_delivery_puts_values_into_variables_and_files_and_never_into_arguments(bench: Bench) -> None:
    bench.secrets.put("other", "other-value")

    delivery = await bench.broker.deliver(
        ["kubectl", "secret://deploy-token"],
        {"A": "b", "T": "secret://other"},
        as_role="devops",
        tool="kubectl",
        op="apply",
    )

    assert delivery.argv == ("kubectl", "/run/secrets/deploy-token")
    assert delivery.env == {"A": "b"}
    assert {k: v.reveal() for k, v in delivery.secret_env.items()} == {"T": "other-value"}
    assert {k: v.reveal() for k, v in delivery.secret_files.items()} == {"/run/secrets/deploy-token": "first-value"}
    assert "value=[REDACTED]" in repr(delivery)
    assert "-value" not in repr(delivery)
    with pytest.raises(PolicyDenied):
        pickle.dumps(delivery)


async def test_one_denied_reference_of_a_run_resolves_none(bench: Bench) -> None:
    with pytest.raises(PolicyDenied):
        await bench.broker.deliver(
            ["x", "secret://deploy-token", "secret://ungranted"], {}, as_role="devops", tool="kubectl", op="apply"
        )

    assert bench.secrets.resolved == []
    assert bench.outcomes == ["denied"]


async def test_run_without_references_leaves_no_line(bench: Bench) -> None:
    delivery = await bench.broker.deliver(["pytest"], {"A": "b"}, as_role="qa", tool="tests", op="pytest")

    assert (delivery.argv, delivery.env, bench.lines) == (("pytest",), {"A": "b"}, [])


steps = st.lists(
    st.tuples(
        st.sampled_from(["resolve", "rotate", "wait", "remove", "fail", "mend", "forget", "silence"]),
        st.sampled_from(["devops", "qa"]),
    ),
    max_size=14,
)


@given(steps, st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_value_is_in_any_audit_line_error_or_view_whatever_happens(taken: list[tuple[str, str]], text: str) -> None:
    # The marker makes the value findable: no name, version or word of a message holds it.
    marker = f"~{text}~Zq9"

    async def story() -> None:
        bench, found = Bench(), list[str]()
        bench.secrets.put("deploy-token", marker)
        for step, role in taken:
            match step:
                case "resolve":
                    try:
                        value = await bench.resolve(role=role)
                    except (PolicyDenied, NotFound, StoreUnavailable) as error:
                        found.extend(leaks(error, marker))
                    else:
                        assert role == "devops"
                        assert marker in value.reveal()
                        assert marker not in bench.known.redact(f"x {value.reveal()} y").text
                        assert marker not in f"{value!r}"
                case "rotate":
                    bench.secrets.put("deploy-token", f"{len(bench.lines)}{marker}")
                case "wait":
                    bench.clock.advance(45)
                case "remove":
                    bench.secrets.remove("deploy-token")
                case "fail":
                    bench.secrets.failure = StoreUnavailable("down")
                case "mend":
                    bench.secrets.failure, bench.audit_fails = None, False
                case "silence":
                    bench.audit_fails = True
                case _:
                    bench.broker.forget("deploy-token")
        assert marker not in "".join(f"{line!r}{line.model_dump_json()}" for line in bench.lines)
        assert marker.encode() not in pickle.dumps(bench.lines)
        assert found == []

    asyncio.run(story())
