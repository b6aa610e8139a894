"""Trajectories of a running fleet, for one command."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.adapters.parquet import ParquetTrajectorySink
from fleet.adapters.redis import RedisEventLog, connect_redis
from fleet.models import load_models
from fleet.services.known_secrets import KnownSecrets
from fleet.services.trajectory_export import ExportProgress, TrajectoryExport
from fleet.services.whole_log import WholeLog
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.recording import recording_redaction
from fleet.wiring.stores import make_blobs

__all__ = ["open_trajectory_export"]


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
    redis = connect_redis(endpoints.redis_url)
    try:
        blobs = make_blobs(endpoints, redis)
        models = load_models(endpoints.files.document("models.yaml"))
        yield TrajectoryExport(
            log=WholeLog(RedisEventLog(redis), blobs),
            blobs=blobs,
            sink=ParquetTrajectorySink(folder),
            redact=recording_redaction(models, environ, KnownSecrets()),
            progress=progress,
        )
    finally:
        await redis.aclose()
