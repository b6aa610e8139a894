"""The broker of secrets, and the values that redaction has to know."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from pydantic import JsonValue

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, InvalidInput, NotFound, PolicyDenied
from fleet.policy.secret_grants import SECRET_RULE, SecretAccess, SecretOutcome, SecretPolicy
from fleet.policy.secret_refs import parse_reference, plan_delivery, references_in
from fleet.redaction.known_values import MIN_SECRET_CHARS, RedactedText, forms_of, redact_known
from fleet.redaction.redact import redact
from fleet.redaction.redact_json import redact_json
from fleet.secrets.port import SecretDelivery, SecretProvider, SecretValue

_KEPT_VERSIONS = 8
"""A run may still print a value that was rotated while it ran."""


class KnownSecrets:
    """Redacts every value that was registered, its usual encodings, and what looks like a secret (CX-60)."""

    def __init__(self) -> None:
        self._values: dict[str, deque[str]] = {}
        self._forms: frozenset[str] = frozenset()

    def register(self, value: SecretValue) -> bool:
        """From now on the value is taken out of text. False when it is too short to be told from ordinary text.

        The last eight values of one name are kept for the life of this object.
        """
        text = value.reveal()
        if len(text) < MIN_SECRET_CHARS:
            return False
        kept = self._values.setdefault(value.name, deque(maxlen=_KEPT_VERSIONS))
        if text not in kept:
            kept.append(text)
            self._forms = frozenset[str]().union(*(forms_of(t) for texts in self._values.values() for t in texts))
        return True

    @property
    def longest(self) -> int:
        """Characters of the longest form: who redacts a stream in pieces keeps so many of them back (CX-75)."""
        return max(map(len, self._forms), default=0)

    def redact(self, text: str) -> RedactedText:
        """The text without any of the values or what looks like a secret, and how many places were taken out."""
        without_values = self.redact_values(text)
        redacted = redact(without_values.text)
        return RedactedText(redacted.text, without_values.places + len(redacted.spans))

    def redact_values(self, text: str) -> RedactedText:
        """The text without any of the values: for what was looked at for secrets before, where they were not known."""
        return redact_known(text, self._forms)

    def redact_json(self, value: Any) -> Any:
        """The data without any of the values or what looks like a secret, names of fields too."""
        return redact_json(self._without_values(value))

    def _without_values(self, value: Any) -> Any:
        match value:
            case str():
                return self.redact_values(value).text
            case list() | tuple():
                return [self._without_values(item) for item in cast("Sequence[Any]", value)]
            case Mapping():
                items = cast("Mapping[str, Any]", value).items()
                return {self.redact_values(name).text: self._without_values(item) for name, item in items}
            case _:
                return value

    def __repr__(self) -> str:
        return f"KnownSecrets({len(self._values)} names)"


RecordAccess = Callable[[SecretAccess], Awaitable[None]]
"""Writes one audit line. When it fails, no value is handed out."""


class _Use(NamedTuple):
    role: str
    tool: str
    op: str


class _Kept(NamedTuple):
    value: SecretValue
    ends_ms: int


class SecretBroker:
    """The only way from a reference to a value.

    Every use is decided by the policy, also when the value is at hand. A value is kept until its life ends and is then
    read again, so a rotation is seen without a restart; a provider that fails then is an error, never an old value.
    Every use leaves one audit line before the value is handed out. Every value is registered for redaction first.

    Args:
        providers: secret name -> the provider that serves it.
        policy: who may use what; the default is deny.
        clock: measures the life of values (monotonic) and stamps audit lines.
        record: writes the audit lines.
        known: where values are registered for redaction.
        max_life_s: bound on the life of every value, whatever its provider says.
    """

    def __init__(
        self,
        providers: Mapping[str, SecretProvider],
        policy: SecretPolicy,
        *,
        clock: Clock,
        record: RecordAccess,
        known_secrets: KnownSecrets,
        max_life_s: int = 300,
    ) -> None:
        self._providers = dict(providers)
        self._policy = policy
        self._clock = clock
        self._record = record
        self._known = known_secrets
        self._max_life_s = max_life_s
        self._kept: dict[str, _Kept] = {}
        # One per name: while one use asks the provider, others of that name wait for its answer.
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The present value, for this role, tool and operation.

        Raises:
            PolicyDenied: no grant covers the use (whether the secret exists or not), the source refuses us, or the
                value is too short to be kept out of logs.
            InvalidInput: the name is no name; nothing is recorded, it may be a value.
            NotFound: the provider has no such secret.
            StoreUnavailable: the provider does not answer.
        """
        return (await self._resolve_all((name,), _Use(as_role, tool, op)))[name]

    async def resolve_arguments(
        self, arguments: JsonValue, *, as_role: str, tool: str, op: str
    ) -> Mapping[str, SecretValue]:
        """RFC 6901 pointer -> value, of every reference in the arguments of a tool that runs in this process.

        The arguments themselves keep their references, so that they may be recorded. Raises like `resolve`, and
        InvalidInput for a malformed reference. All grants are decided before the first value is asked for.
        """
        references = references_in(arguments)
        values = await self._resolve_all((r.name for r in references), _Use(as_role, tool, op))
        return {reference.pointer: values[reference.name] for reference in references}

    async def deliver(
        self, argv: Sequence[str], env: Mapping[str, str], *, as_role: str, tool: str, op: str
    ) -> SecretDelivery:
        """What a run needs to find its secrets, in its environment or as files. Raises like `resolve_arguments`."""
        plan = plan_delivery(argv, env)
        values = await self._resolve_all(plan.names, _Use(as_role, tool, op))
        return SecretDelivery(
            argv=plan.argv,
            env=plan.env,
            secret_env={variable: values[name] for variable, name in plan.secret_env.items()},
            secret_files={path: values[name] for path, name in plan.secret_files.items()},
        )

    def forget(self, name: str) -> None:
        """The next use asks the provider: for a value that its receiver has just refused."""
        self._kept.pop(name, None)

    async def _resolve_all(self, names: Iterable[str], use: _Use) -> dict[str, SecretValue]:
        distinct = sorted(set(names))
        for name in distinct:
            await self._permit(name, use)
        return {name: await self._value(name, use) for name in distinct}

    async def _permit(self, name: str, use: _Use) -> None:
        # A caller may hand in any text as a name; what is none must not get into the audit, it may be a value.
        if parse_reference(f"secret://{name}") is None:
            raise InvalidInput("a secret name holds white space; name a secret")
        if self._policy.allows(name, role=use.role, tool=use.tool, op=use.op):
            return
        denial = self._policy.denial(name, role=use.role, tool=use.tool, op=use.op)
        await self._note(name, use, "denied", error=denial.code)
        raise denial

    async def _value(self, name: str, use: _Use) -> SecretValue:
        async with self._asking[name]:
            self._drop_ended()
            kept = self._kept.get(name)
            if kept is not None:
                await self._note(name, use, "cached", version=kept.value.version)
                return kept.value
            return await self._fresh(name, use)

    async def _fresh(self, name: str, use: _Use) -> SecretValue:
        # From before the request: the life of a value begins when its source looked, not when the answer came.
        started_ms = self._clock.monotonic_ms()
        try:
            value = await self._ask(name, use)
        except FleetError as error:
            await self._note(name, use, _outcome(error), error=error.code)
            raise
        life_s = min(value.ttl_s, self._max_life_s)
        await self._note(name, use, "resolved", version=value.version)
        self._kept[name] = _Kept(value, started_ms + life_s * 1000)
        return value

    async def _ask(self, name: str, use: _Use) -> SecretValue:
        if name not in self._providers:
            raise NotFound(f"no provider serves secret {name!r}; add it to config/secrets.yaml", secret=name)
        value = await self._providers[name].resolve(name, as_role=use.role, tool=use.tool, op=use.op)
        if not self._known.register(value):
            raise PolicyDenied(
                f"secret {name!r} has fewer than {MIN_SECRET_CHARS} characters, so it cannot be kept out of logs; "
                "store a longer one",
                rule_id=SECRET_RULE,
                secret=name,
            )
        return value

    def _drop_ended(self) -> None:
        now = self._clock.monotonic_ms()
        self._kept = {name: kept for name, kept in self._kept.items() if now < kept.ends_ms}

    async def _note(
        self,
        name: str,
        use: _Use,
        outcome: SecretOutcome,
        *,
        version: str | None = None,
        error: str | None = None,
    ) -> None:
        provider = self._providers.get(name)
        await self._record(
            SecretAccess(
                name=name,
                provider=provider.label if provider else None,
                role=use.role,
                tool=use.tool,
                op=use.op,
                outcome=outcome,
                version=version,
                error=error,
                at_ms=self._clock.now_ms(),
            )
        )


def _outcome(error: FleetError) -> SecretOutcome:
    match error:
        case NotFound():
            return "not_found"
        case PolicyDenied():
            return "denied"
        case _:
            return "failed"
