"""Tool http: one request to a listed host, over an address that was checked (RT-47, RT-59)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from fleet.extensions.operations.answers import SecretSource, outcome_of, without_secrets
from fleet.extensions.operations.arguments import mapping_of, maybe_text, text_of, unknown_op
from fleet.kernel.errors import InvalidInput, PolicyDenied, ToolFailed, ToolTimeout
from fleet.policy.addresses import addresses_refusal
from fleet.policy.commands.http import (
    CREDENTIAL_HEADERS,
    MAX_REDIRECTS,
    RequestTarget,
    check_target,
    checked_headers,
    redirected,
    target_of,
)
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.secrets.port import SecretValue
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.web.answers import Unanswered
from fleet.web.http import HttpAnswer, HttpExchanges

MAX_BODY_BYTES = 1 << 20
"""Bytes of an answer that are kept (RT-59)."""
_METHODS = {op: op.upper() for op in ("get", "head", "post", "put", "patch", "delete")}
_SHOWN = ("content-type", "content-length", "etag", "last-modified", "location", "retry-after")

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> numeric addresses; OSError when the name has none."""


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """The addresses that the machine's resolver has, each once, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Answer(NamedTuple):
    target: RequestTarget
    got: HttpAnswer
    hops: int


class HttpTool:
    """Asks listed hosts. Every name is looked up here, once per hop, and only a checked address is connected to.

    Args:
        blobs: where answers that are longer than an excerpt go.
        hosts: `targets.hosts` of the policy; redirects are checked against them too.
        secrets: resolves references in credential headers; None refuses them.
        allowed_addresses: networks of the owner that are reached although they are not public.
        plain_hosts: listed hosts that may be asked without TLS.
        lookup: of names. Default: the machine's.
        tls: trust of https. Default: the usual authorities.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        hosts: Sequence[str],
        secrets: SecretSource | None = None,
        allowed_addresses: Sequence[str] = (),
        plain_hosts: Sequence[str] = (),
        lookup: Lookup = system_lookup,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._blobs = blobs
        self._hosts = tuple(hosts)
        self._secrets = secrets
        self._allowed = tuple(allowed_addresses)
        self._plain = tuple(plain_hosts)
        self._lookup = lookup
        self._http = HttpExchanges(tls, timeout_s=None)

    @property
    def name(self) -> str:
        """`http`."""
        return "http"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Send the request and follow at most five redirects.

        `content`: status, url, headers, bytes, redirects, is_cut. An answer of 400 or more is an outcome `failed` with
        reason `http_status`. Raises ToolTimeout when no answer came in time, ToolFailed when the host cannot be
        reached, PolicyDenied for an address, a redirect or a secret that is not permitted.
        """
        if call.op not in _METHODS:
            raise unknown_op(call)
        target = target_of(text_of(call, "url"))
        check_target(target, hosts=self._hosts, plain_hosts=self._plain)
        headers, values = await self._headers(call, context)
        try:
            async with asyncio.timeout(context.obligations.timeout_s):
                answer = await self._follow(call, target, headers)
        except TimeoutError as error:
            raise ToolTimeout(
                f"{target.host} did not answer in time; whether it acted on the request is not known", host=target.host
            ) from error
        return await self._outcome(answer, values)

    async def _headers(self, call: ToolCall, context: ToolContext) -> tuple[dict[str, str], list[SecretValue]]:
        headers = checked_headers(mapping_of(call, "headers"))
        if (content_type := maybe_text(call, "content_type")) is not None:
            headers |= checked_headers({"content-type": content_type})
        references = {name: value for name, value in headers.items() if name in CREDENTIAL_HEADERS}
        values: Mapping[str, SecretValue] = {}
        if references:
            if self._secrets is None:
                raise InvalidInput("no secrets are configured; leave the credential out", field="headers")
            values = await self._secrets.resolve_arguments(
                dict(references), as_role=context.role, tool=call.tool, op=call.op
            )
        for pointer, value in values.items():
            name, text = pointer[1:], value.reveal()
            headers[name] = f"Bearer {text}" if name == "authorization" and " " not in text else text
        if call.op not in ("get", "head"):
            headers["idempotency-key"] = context.key
        return headers, list(values.values())

    async def _follow(self, call: ToolCall, target: RequestTarget, headers: dict[str, str]) -> _Answer:
        method, body = _METHODS[call.op], (maybe_text(call, "body") or "").encode()
        for hops in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(method, target, headers, body)
            location = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or location is None:
                return _Answer(target, answer, hops)
            before, target = target, redirected(target, location, hosts=self._hosts, plain_hosts=self._plain)
            if method not in ("GET", "HEAD") and answer.status not in (307, 308):
                method, body = "GET", b""
                headers = {k: v for k, v in headers.items() if k != "content-type"}
            if target[:3] != before[:3]:
                # A credential is for the host that it was named for.
                headers = {k: v for k, v in headers.items() if k not in CREDENTIAL_HEADERS}
        raise PolicyDenied(
            f"more than {MAX_REDIRECTS} redirects; ask the last address itself", rule_id="RT-59", host=target.host
        )

    async def _exchange(
        self, method: str, target: RequestTarget, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer:
        sent = {"accept": "*/*", "user-agent": "swe-fleet", **headers}
        why = ""
        for address in await self._addresses(target):
            try:
                return await self._http.ask(
                    method, target.url, headers=sent, content=body or None, most=MAX_BODY_BYTES, at=address
                )
            except Unanswered as error:
                if error.was_sent:
                    raise ToolFailed(
                        f"{target.host} broke the exchange off ({error.kind}); whether it acted is not known",
                        host=target.host,
                    ) from error
                why = "its certificate is not trusted" if error.is_distrust else error.kind
        raise ToolFailed(f"{target.host} cannot be reached: {why}; check that it runs", host=target.host)

    async def _addresses(self, target: RequestTarget) -> Sequence[str]:
        try:
            found = await self._lookup(target.host, target.port)
        except (OSError, UnicodeError) as error:
            raise ToolFailed(f"the name {target.host} has no address: {error}", host=target.host) from error
        if (why := addresses_refusal(found, allowed=self._allowed)) is not None:
            raise PolicyDenied(f"{target.host} must not be connected to: {why}", rule_id="RT-59", host=target.host)
        return found

    async def _outcome(self, answer: _Answer, values: list[SecretValue]) -> ToolOutcome:
        got = answer.got
        text = without_secrets(got.data.decode("utf-8", "replace"), values)
        shown = {name: without_secrets(got.headers[name], values) for name in _SHOWN if name in got.headers}
        is_good = got.status < 400
        return await outcome_of(
            text,
            self._blobs,
            kind="succeeded" if is_good else "failed",
            reason="ok" if is_good else "http_status",
            exit_code=got.status,
            content={
                "status": got.status,
                "url": answer.target.url,
                "headers": dict(shown),
                "bytes": len(got.data),
                "redirects": answer.hops,
                "is_cut": not got.is_whole,
            },
        )


PLUGIN = ToolPlugin(
    name="http",
    make=lambda parts: HttpTool(parts.blobs, hosts=parts.targets.hosts, secrets=parts.secrets),
)
