"""The one resolver of actor names: finds actors, caches handles, unwraps errors (docs/design/design.md, section 3)."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray import exceptions as ray_errors

from fleet.kernel.errors import FleetError, SandboxUnavailable, StoreUnavailable, ToolTimeout
from fleet.telemetry.service import carried

NAMESPACE = "fleet"
_GONE = (
    ray_errors.RayActorError,
    ray_errors.RaySystemError,
    # Of an actor that is pinned to a node, and of an answer that was still kept on one, when that node is dead.
    ray_errors.ActorUnschedulableError,
    ray_errors.ObjectLostError,
)


class ActorResolver:
    """Calls actors by name. A handle is dropped as soon as its actor is found dead, and looked up again."""

    def __init__(self, *, wait_s: float = 60.0) -> None:
        self._handles: dict[str, Any] = {}
        self._wait_s = wait_s

    async def call(
        self, name: str, method: str, *args: Any, timeout_s: float, found_within_s: float | None = None, **kwargs: Any
    ) -> Any:
        """The method's result. Errors of ours arrive as themselves.

        Args:
            found_within_s: seconds that are given to an actor that is not there yet. Default: those of the resolver.

        Raises:
            SandboxUnavailable, StoreUnavailable: the actor is not there, or died during the call; the call may have
                been executed, so repeat it under the same key. Details `is_restarting`: Ray is starting it again.
            ToolTimeout: no answer in time.
        """
        handle = await self.handle(name, within_s=found_within_s)
        if (cause := carried()) is not None:
            kwargs["caused_by"] = cause
        try:
            return await asyncio.wait_for(_await(getattr(handle, method).remote(*args, **kwargs)), timeout_s)
        except TimeoutError as error:
            raise ToolTimeout(f"actor {name} did not answer {method} within {timeout_s:g} s", actor=name) from error
        except ray_errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FleetError):
                raise cause from error
            raise FleetError(f"actor {name} failed in {method}: {cause!r}", actor=name) from error
        except _GONE as error:
            self.forget(name)
            is_restarting = isinstance(error, ray_errors.ActorUnavailableError)
            raise _gone(name, str(error), is_restarting=is_restarting) from error

    def forget(self, name: str) -> None:
        """The handle of this name is looked up again before its next use."""
        self._handles.pop(name, None)

    async def handle(self, name: str, *, within_s: float | None = None) -> Any:
        """The actor's handle; StoreUnavailable or SandboxUnavailable when it is not there in time."""
        if name in self._handles:
            return self._handles[name]
        deadline = asyncio.get_running_loop().time() + (self._wait_s if within_s is None else within_s)
        while True:
            try:
                handle: Any = await asyncio.to_thread(_look_up, name)
            except ValueError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise _gone(name, "it was never started") from error
                await asyncio.sleep(0.2)
                continue
            self._handles[name] = handle
            return handle


def _look_up(name: str) -> Any:
    return ray.get_actor(name, NAMESPACE)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


async def _await(ref: Any) -> Any:
    return await ref


def _gone(name: str, why: str, *, is_restarting: bool = False) -> FleetError:
    text = (
        f"actor {name} cannot be reached ({why.splitlines()[0] if why else 'no reason given'}); `fleet status` shows it"
    )
    kind = SandboxUnavailable if name.startswith("sandbox:") else StoreUnavailable
    return kind(text, actor=name, **({"is_restarting": True} if is_restarting else {}))
