"""Bundles for whoever goes on with a story: from the log alone, and kept for a while on request (CX-40..CX-44)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from fleet.context.bundle import MilestoneLine, RehydrationBundle, RolePack, TimelineLine, bundle_stats, role_pack
from fleet.context.port import BundleStore
from fleet.context.row_cut import RowCut
from fleet.context.scope import ContextConfig, scopes_for
from fleet.context.sections import tasks_of
from fleet.context.view import StoryView, milestones
from fleet.desk.planning import PlanningDesk
from fleet.events.codec import decode, rfc3339
from fleet.events.envelope import StoredEvent
from fleet.kernel.clock import Clock
from fleet.kernel.digest import canonical_json, digest_of
from fleet.kernel.errors import InvalidInput, NotFound, PolicyDenied, StoreUnavailable
from fleet.kernel.ids import Digest, StoryId
from fleet.report.timeline import describe
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

MAX_WAIT_S = 2.0
"""How long an answer waits for the log to reach the asked version (CX-34)."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Rehydrated:
    """A bundle, its hash, and when it was made; the hash does not cover the time."""

    bundle: RehydrationBundle
    hash: Digest
    made_ms: int


class Rehydrator:
    """Builds bundles. No agent and no cache is needed for that; kept ones may be lost at any time.

    Args:
        kept: where bundles are kept that somebody wants to hand on.
    """

    def __init__(
        self,
        *,
        planning: PlanningDesk,
        blobs: BlobStore,
        kept: BundleStore,
        config: ContextConfig,
        clock: Clock,
    ) -> None:
        self._planning, self._blobs, self._kept = planning, blobs, kept
        self._config, self._clock = config, clock

    async def build(
        self,
        story_id: StoryId,
        *,
        roles: Collection[str] = (),
        timeline: int = 50,
        with_summaries: bool = True,
        min_version: int = 0,
        cut_of: Callable[[StoryState], Awaitable[RowCut | None]] | None = None,
    ) -> Rehydrated:
        """The story as it is for these roles; without any for all that have a task.

        Args:
            timeline: how many of the last events are told; 0 for none.
            cut_of: what of the story is shown to the one who asks; None is all of it (CX-16).

        Raises:
            StoryNotFound: there is no such story.
            InvalidInput: a role that config/context.yaml does not know.
            StoreUnavailable: the log did not come to `min_version` within 2 s.
        """
        self._check_roles(roles)
        state = await self._state(story_id, min_version)
        cut = await cut_of(state) if cut_of is not None else None
        recent, told = await self._milestones(state, cut), await self._timeline(state, timeline, cut)
        # Of a cut there is no summary: it tells of all that its role was told.
        state = state if cut is None else cut.state(state)
        view = StoryView(state=state, summaries=await self._summaries(state) if with_summaries else {})
        phase = self._planning.fsm_of(state).lifecycles[state.lifecycle].phase(state.state)
        chosen = sorted(set(roles)) or sorted({t.task.role for t in tasks_of(state)})
        packs, denied = dict[str, RolePack](), list[str]()
        for role in chosen:
            try:
                scopes = scopes_for(self._config, phase, role)
            except PolicyDenied:
                denied.append(role)
                continue
            packs[role] = role_pack(
                view, self._config, role=role, scopes=scopes, recent=recent, with_summary=with_summaries
            )
        bundle = RehydrationBundle(
            story_id=story_id,
            as_of=state.version,
            phase=phase,
            packs=packs,
            denied=tuple(denied),
            timeline=told,
            stats=bundle_stats(state, packs),
        )
        return Rehydrated(bundle, digest_of(_stored(bundle)), self._clock.now_ms())

    async def keep(self, rehydrated: Rehydrated, *, ttl_s: int) -> None:
        """The bundle can be read under its story, version and hash for `ttl_s` seconds after its last use."""
        bundle = rehydrated.bundle
        await self._kept.keep(StoryId(bundle.story_id), bundle.as_of, rehydrated.hash, _stored(bundle), ttl_s=ttl_s)

    async def kept(
        self, story_id: StoryId, version: int, hash: Digest, *, cut: RowCut | None = None
    ) -> RehydrationBundle:
        """A bundle that was kept; NotFound when it is over, or never was: then it is to be built again.

        A bundle is handed on as a whole, under the hash of all of it: whoever may not see each part sees none.
        """
        data = await self._kept.get(story_id, version, hash)
        if data is not None and digest_of(data) == hash:
            bundle = RehydrationBundle.model_validate_json(data)
            if cut is None or await self._shows(cut, bundle):
                return bundle
        raise NotFound(f"no bundle of story {story_id} is kept under {hash}: build it again", hash=str(hash))

    async def _shows(self, cut: RowCut, bundle: RehydrationBundle) -> bool:
        told = {line.version for line in bundle.timeline}
        events = await self._planning.events(StoryId(bundle.story_id)) if told else []
        is_summed_up = any(pack.last_summary for pack in bundle.packs.values())
        return (
            not is_summed_up
            and not cut.names(bundle.model_dump(mode="json"))
            and told <= {event.version for event in events if cut.takes(event)}
        )

    def _check_roles(self, roles: Collection[str]) -> None:
        names = self._config.roles | self._config.profiles.keys()
        if unknown := sorted(set(roles) - names):
            raise InvalidInput(f"there is no role {unknown[0][:60]!r}", field="roles", allowed=sorted(names))

    async def _state(self, story_id: StoryId, min_version: int) -> StoryState:
        deadline_ms = self._clock.monotonic_ms() + int(MAX_WAIT_S * 1000)
        while (state := await self._planning.state(story_id)).version < min_version:
            if self._clock.monotonic_ms() >= deadline_ms:
                raise StoreUnavailable(
                    f"story {story_id} is at version {state.version}, version {min_version} did not come within "
                    f"{MAX_WAIT_S:g} s: ask again later",
                    version=state.version,
                    as_of=min_version,
                )
            await self._clock.sleep(_POLL_S)
        return state

    async def _summaries(self, state: StoryState) -> dict[str, str]:
        return {role: (await self._blobs.get(one.blob)).decode() for role, one in state.summaries.items()}

    async def _milestones(self, state: StoryState, cut: RowCut | None) -> list[MilestoneLine]:
        versions = state.milestones[-self._config.milestones :]
        events = [e for v in versions for e in await self._planning.events(state.story_id, after=v - 1, limit=1)]
        events = [event for event in events if cut is None or cut.takes(event)]
        gates = {name: approval.request.gate for name, approval in state.approvals.items()}
        told = {m.version: m.text for m in milestones(events, last=len(events), gates=gates)} if events else {}
        return [
            MilestoneLine(ts=rfc3339(event.ts_ms), event=told[event.version], actor=event.actor)
            for event in events
            if event.version in told
        ]

    async def _timeline(self, state: StoryState, number: int, cut: RowCut | None) -> tuple[TimelineLine, ...]:
        if not number:
            return ()
        first = max(0, state.version - number)
        events = await self._planning.events(state.story_id, after=first, limit=state.version - first)
        return tuple(_line(event) for event in events if cut is None or cut.takes(event))


def _line(event: StoredEvent) -> TimelineLine:
    return TimelineLine(
        version=event.version,
        ts=rfc3339(event.ts_ms),
        event=event.type,
        actor=event.actor,
        text=describe(decode(event)),
    )


def _stored(bundle: RehydrationBundle) -> bytes:
    return canonical_json(bundle.model_dump(mode="json"))
