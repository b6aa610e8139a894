"""Secrets of runs (RT-65): who may have them, how they are handed over, and that they come out again nowhere."""

from __future__ import annotations

from fleet.errors import PolicyDenied
from fleet.ports import SecretDelivery
from fleet.services.known_secrets import KnownSecrets
from fleet.services.secret_broker import SecretBroker
from fleet.tools import SECRET_RULE, OutputStream, RunResult, RunSpec, plan_delivery

__all__ = ["RunSecrets"]


class RunSecrets:
    """The secrets that runs of one supervisor refer to.

    Args:
        broker: resolves the references; None refuses runs that have any.
        known: the values that the broker registers, taken out of all text that comes back.
    """

    def __init__(self, broker: SecretBroker | None, known: KnownSecrets) -> None:
        self._broker, self._known = broker, known

    def check(self, spec: RunSpec) -> None:
        """Raises PolicyDenied when the run refers to secrets that nobody here can give it."""
        names = plan_delivery(spec.argv, spec.env).names
        if names and (spec.grantee is None or self._broker is None):
            why = "nobody is named who may have them" if spec.grantee is None else "this sandbox serves none"
            raise PolicyDenied(
                f"the run refers to secrets {', '.join(names)}, and {why}; call a tool that a grant of "
                "config/secrets.yaml covers",
                rule_id=SECRET_RULE,
                secrets=list(names),
            )

    async def delivery(self, spec: RunSpec) -> SecretDelivery | None:
        """What the run is given; None when it refers to nothing. Raises PolicyDenied where no grant covers it."""
        grantee = spec.grantee
        if grantee is None or self._broker is None or not plan_delivery(spec.argv, spec.env).names:
            return None
        return await self._broker.deliver(spec.argv, spec.env, as_role=grantee.role, tool=grantee.tool, op=grantee.op)

    def plain(self, text: str) -> str:
        """The text without any known value, nor what looks like a secret."""
        return self._known.redact(text).text

    def redacted(self, result: RunResult) -> RunResult:
        """The result without any known value in what it shows of the output."""

        def plain(stream: OutputStream) -> OutputStream:
            head, tail = self._known.redact(stream.head).text, self._known.redact(stream.tail).text
            return stream.model_copy(update={"head": head, "tail": tail})

        return result.model_copy(update={"stdout": plain(result.stdout), "stderr": plain(result.stderr)})
