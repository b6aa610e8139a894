"""Tool db: statements on listed databases; what a statement does decides, not the name of the operation (RT-60)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fleet.extensions.operations.answers import SecretSource, outcome_of, without_secrets
from fleet.extensions.operations.arguments import text_of, unknown_op
from fleet.extensions.operations.database import MAX_ROWS, Database, Rejected, Rows
from fleet.extensions.operations.neo4j import Neo4jDatabase
from fleet.extensions.operations.postgresql import PostgresqlDatabase
from fleet.extensions.operations.redis import RedisDatabase
from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.secret_refs import parse_reference
from fleet.policy.targets import DatabaseTarget
from fleet.secrets.port import SecretValue
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore

_OPS = {
    "postgresql_query": ("postgresql", "read"),
    "postgresql_execute": ("postgresql", "write"),
    "redis_read": ("redis", "read"),
    "redis_write": ("redis", "write"),
    "neo4j_read": ("neo4j", "read"),
    "neo4j_write": ("neo4j", "write"),
}


class DbTool:
    """Statements on the databases of the policy.

    Args:
        blobs: where results that are longer than an excerpt go.
        databases: `targets.databases` of the policy.
        secrets: resolves addresses of the form `secret://<name>`.
        drivers: kind -> what talks to it; by default the three that ship.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        databases: Mapping[str, DatabaseTarget],
        secrets: SecretSource | None = None,
        drivers: Mapping[str, Database] | None = None,
    ) -> None:
        self._blobs = blobs
        self._databases = databases
        self._secrets = secrets
        self._drivers: Mapping[str, Database] = drivers or {
            "postgresql": PostgresqlDatabase(),
            "redis": RedisDatabase(),
            "neo4j": Neo4jDatabase(),
        }

    @property
    def name(self) -> str:
        """`db`."""
        return "db"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry the statement out. Reading changes nothing; writing is whole or not at all.

        `text`: one JSON array per row. `content`: columns, rows (their number), status, is_cut. A statement that the
        database refuses is an outcome `failed`. Raises PolicyDenied for a statement that the operation does not
        cover, ToolFailed when the database cannot be reached, ToolTimeout.
        """
        if call.op not in _OPS:
            raise unknown_op(call)
        kind, access = _OPS[call.op]
        target = self._target(text_of(call, "database"), kind, is_write=access == "write")
        driver = self._drivers[kind]
        self._permit(call, driver, access)
        url, value = await self._address(target, access, call, context)
        try:
            found = await (driver.write(url, call) if access == "write" else driver.read(url, call))
        except Rejected as error:
            return await self._rejected(error, value)
        return await self._told(found)

    def _target(self, name: str, kind: str, *, is_write: bool) -> DatabaseTarget:
        target = self._databases.get(name)
        if target is None or target.url is None:
            raise PolicyDenied(
                f"database {name!r} has no address under targets.databases; add kind and url", rule_id="RT-60"
            )
        if target.kind != kind:
            raise InvalidInput(
                f"database {name!r} is of kind {target.kind}; call the operation of that kind", field="database"
            )
        if is_write and not target.allow_write:
            raise PolicyDenied(f"database {name!r} is listed without allow_write: true", rule_id="RT-60", database=name)
        return target

    def _permit(self, call: ToolCall, driver: Database, access: str) -> None:
        found = driver.classify(call)
        if found.kind == "refused" or (found.kind == "write" and access == "read"):
            raise PolicyDenied(
                f"{call.op} does not carry this out: {found.reason}; correct the statement or call another operation",
                rule_id="RT-60",
                statement_class=found.kind,
                reason=found.reason,
            )

    async def _address(
        self, target: DatabaseTarget, access: str, call: ToolCall, context: ToolContext
    ) -> tuple[str, SecretValue | None]:
        url = (target.write_url if access == "write" else None) or target.url or ""
        if parse_reference(url) is None:
            return url, None
        if self._secrets is None:
            raise InvalidInput("the database's address is a secret and no secrets are configured", field="database")
        values = await self._secrets.resolve_arguments({"url": url}, as_role=context.role, tool=call.tool, op=call.op)
        value = values["/url"]
        return value.reveal(), value

    async def _rejected(self, error: Rejected, value: SecretValue | None) -> ToolOutcome:
        if error.reason == "read_only":
            raise PolicyDenied(
                f"the database refused to change anything for an operation that reads: {error.message}",
                rule_id="RT-60",
                statement_class="write",
            ) from error
        text = without_secrets(error.message, [value] if value else [])
        kind = "timed_out" if error.reason == "timeout" else "failed"
        return await outcome_of(text, self._blobs, kind=kind, reason=error.reason)

    async def _told(self, found: Rows) -> ToolOutcome:
        lines = [json.dumps(list(found.columns), ensure_ascii=False), *found.rows]
        if found.is_cut:
            lines.append(f"[... cut after {len(found.rows)} rows; at most {MAX_ROWS} rows and 512 KiB are read ...]")
        return await outcome_of(
            "\n".join(lines),
            self._blobs,
            content={
                "columns": list(found.columns),
                "rows": len(found.rows),
                "status": found.status,
                "is_cut": found.is_cut,
            },
        )


PLUGIN = ToolPlugin(
    name="db",
    make=lambda parts: DbTool(parts.blobs, databases=parts.targets.databases, secrets=parts.secrets),
)
