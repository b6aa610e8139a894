"""Trajectories of a running fleet, for one command."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.audit.service.whole_log import WholeLog
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.models.profiles import load_models
from fleet.report.service.trajectories.export import ExportProgress, TrajectoryExport
from fleet.report.service.trajectories.port import ExportSinkPlugin
from fleet.secrets.service import KnownSecrets
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import Group, choose
from fleet.wiring.stores.redaction import with_engine_keys
from fleet.wiring.stores.stores import make_blobs

SINKS = Group("swe_fleet.export_sinks", "export format", ExportSinkPlugin)


@asynccontextmanager
async def open_trajectory_export(
    endpoints: Endpoints,
    folder: Path,
    *,
    environ: Mapping[str, str],
    progress: Callable[[ExportProgress], None],
) -> AsyncGenerator[TrajectoryExport]:
    """An export into the folder, which is new or empty; its connection is closed at the end.

    Args:
        environ: keys of engines that stand here are taken out of every text, whatever they look like.

    Raises:
        InvalidInput: the folder holds something already.
    """
    sink = choose(SINKS, "parquet", {}, where="export")
    redis = connect_redis(endpoints.redis_url)
    try:
        blobs = make_blobs(endpoints, redis)
        models = load_models(endpoints.files.document("models.yaml"))
        yield TrajectoryExport(
            log=WholeLog(RedisEventLog(redis), blobs),
            blobs=blobs,
            sink=sink.plugin.make(sink.options, folder),
            secrets=with_engine_keys(models, environ, KnownSecrets()),
            progress=progress,
        )
    finally:
        await redis.aclose()
