"""Recorded results of runs, and the lines of their logs (RC-21, RC-22)."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ArtifactNotFound, FleetError, LogCorrupted, PolicyDenied, SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import OutputStream, RunResult, RunSpec
from fleet.policy.runs.toolchains import Language, ToolchainConfig, layer_named
from fleet.policy.secret_grants import SECRET_RULE
from fleet.policy.secret_refs import plan_delivery
from fleet.sandbox.port import LogPage
from fleet.secrets.port import SecretDelivery
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree

LOST = RunResult(status="error", reason="sandbox_lost", exit_code=None)
"""What is recorded for a run whose supervisor died (RC-27)."""


def refused_result(error: FleetError) -> RunResult:
    """The final result of a run that was taken and could not be started; `limits` says why (RC-19)."""
    reason = "sandbox_lost" if isinstance(error, SandboxUnavailable) else "config"
    return RunResult(status="error", reason=reason, exit_code=None, limits={"refused": error.message})


class RunRecords:
    """Results as blobs. The lines of the log that was read last are kept, because its readers come page by page."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._log: tuple[Digest, list[bytes]] | None = None

    async def put(self, result: RunResult) -> Digest:
        """The digest of the stored result."""
        return await self._blobs.put(canonical_json(result))

    async def get(self, digest: Digest) -> RunResult:
        """The result that was stored."""
        return RunResult.model_validate_json(await self._blobs.get(digest))

    async def page(self, digest: Digest, *, after: int, limit: int) -> LogPage:
        """Lines of the run of this result with a number above `after`; `is_over` with the last of them.

        Raises:
            LogCorrupted: the log of the result is no log.
        """
        log = (await self.get(digest)).log
        if log is None:
            return LogPage((), is_over=True)
        lines = await self._lines(log)
        try:
            # Numbers count from 1 without a gap, so a number is a place.
            chosen = tuple(LogLine.model_validate_json(raw) for raw in lines[after : after + limit])
        except ValidationError as error:
            raise LogCorrupted(f"blob {log} is no log of a run: line {after + 1} or a later one", blob=log) from error
        return LogPage(chosen, is_over=after + limit >= len(lines))

    async def _lines(self, log: Digest) -> list[bytes]:
        if self._log is None or self._log[0] != log:
            self._log = (log, (await self._blobs.get(log)).splitlines())
        return self._log[1]


class RunSecrets:
    """The secrets that runs of one supervisor refer to.

    Args:
        broker: resolves the references; None refuses runs that have any.
        known: the values that the broker registers, taken out of all text that comes back.
    """

    def __init__(self, broker: SecretBroker | None, secrets: KnownSecrets) -> None:
        self._broker, self._known = broker, secrets

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
        """The result without any known value in what it shows; its backend looked for all other secrets (CX-60)."""

        def plain(stream: OutputStream) -> OutputStream:
            head, tail = self._known.redact_values(stream.head).text, self._known.redact_values(stream.tail).text
            return stream.model_copy(update={"head": head, "tail": tail})

        return result.model_copy(update={"stdout": plain(result.stdout), "stderr": plain(result.stderr)})


_PYTHON = frozenset({"pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", "requirements.txt"})
_OTHERS: tuple[tuple[str, Language], ...] = (("go.mod", "go"), ("Cargo.toml", "rust"), ("package.json", "node"))


def language_of(paths: Collection[str]) -> Language:
    """The language whose build file lies at the root: of Python, Go, Rust and Node the first; Python when none does."""
    root = {path for path in paths if "/" not in path}
    if not root & _PYTHON and not any(path.endswith(".py") for path in root):
        for name, language in _OTHERS:
            if name in root:
                return language
    return "python"


async def project_language(blobs: BlobStore, tree: Digest | None, toolchain: ToolchainConfig | None) -> Language:
    """The language of a toolchain; a Python one says nothing of the project, so its files say it."""
    if toolchain is not None and toolchain.language != "python":
        return toolchain.language
    if tree is None:
        return "python"
    try:
        return language_of(await read_tree(blobs, tree))
    except ArtifactNotFound:
        return "python"  # the tool that needs the tree says what is wrong


def toolchain_for(language: Language, toolchain: str) -> str:
    """The toolchain to run the project's tools in: a Python one has no compiler of another language."""
    if (layer := layer_named(toolchain)) is not None:
        return toolchain if layer.language == language else language
    is_python = toolchain == "python" or toolchain.startswith("env:")
    return language if is_python and language != "python" else toolchain
