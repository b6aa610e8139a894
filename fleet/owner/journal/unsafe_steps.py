"""Steps whose effect may not be repeated: never a second time by themselves (RC-52, RC-57)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepResolved
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import FleetError, NondeterministicPlan, OutcomeUnknown, OwnershipError
from fleet.kernel.ids import SYSTEM, Digest, RunKey, StepId
from fleet.kernel.types import ProbeResult
from fleet.owner.journal.step_records import finished_effect
from fleet.owner.journal.steps import Steps, Work
from fleet.story.state import Step


@dataclass(frozen=True, slots=True)
class Probe:
    """A read-only look at whether an UNSAFE effect happened (RC-57)."""

    name: str
    look: Callable[[], Awaitable[ProbeResult]]


class UnsafeSteps(Steps):
    """Steps whose receiver has no key to know a second request by."""

    async def act_unsafe(
        self,
        step: str,
        request: dict[str, Any],
        work: Work,
        effect: Callable[[RunKey], Awaitable[dict[str, Any]]],
        *,
        probe: Probe | None = None,
        wall_s: int = 300,
    ) -> dict[str, Any]:
        """The recorded result of an UNSAFE effect, which is started at most once per attempt (RC-52).

        A step that was started and has no result is never repeated, whatever would be sent today (RC-58). The probe may
        resolve it; otherwise a person has to (`resolve_step`): `happened` counts as its result, `not_happened` lets it
        run again under a new key.

        Raises:
            OutcomeUnknown: until the step is resolved; details name the step and the blob of what was sent.
            NondeterministicPlan: something else was sent and has happened. Its result would be taken for that of this
                request.
        """
        step_id = StepId(step)
        # The blob of the request has the digest that the step names, so that a person can be shown what was sent.
        digest = await self.blobs.put(canonical_json(request))
        finished = self._finished(step_id)
        known = self.state.steps.get(step_id)
        if finished is None and known is not None and known.resolution != "not_happened":
            await self._settle(known, work, probe)
            finished = self._finished(step_id)
        if finished is not None:
            self._require_sent(step_id, digest)
        else:
            key = await self._start(step_id, digest, work, kind="tool", effect="UNSAFE", wall_s=wall_s)
            finished = await self._do_once(step_id, key, work, effect, probe)
        return json.loads(await self.blobs.get(finished.result_digest))

    def _require_sent(self, step_id: StepId, request: Digest) -> None:
        sent = self.state.steps[step_id].started.request_digest
        if sent != request:
            raise NondeterministicPlan(
                f"step {step_id} is done and cannot be undone, and would now send something else: what was sent is "
                f"{sent}, what would be sent is {request}. Go on with the version and the configuration that sent it, "
                "or cancel the story",
                step_id=step_id,
                recorded=sent,
                wanted=request,
            )

    async def _do_once(
        self,
        step_id: StepId,
        key: RunKey,
        work: Work,
        effect: Callable[[RunKey], Awaitable[dict[str, Any]]],
        probe: Probe | None,
    ) -> StepFinished:
        self.admit()
        try:
            result = await effect(key)
        except OwnershipError:
            raise
        except FleetError:
            # The request may have arrived all the same: an error says nothing about an effect that has no key.
            await self._settle(self.state.steps[step_id], work, probe)
            finished = self.state.steps[step_id].finished
            if finished is None:
                raise  # the probe says that it did not happen: the next try starts it again under a new key
            return finished
        return await self._finish(await finished_effect(self.blobs, step_id, result), work)

    async def _settle(self, step: Step, work: Work, probe: Probe | None) -> None:
        """The unknown step is resolved by the probe. Raises OutcomeUnknown when it is not."""
        started, attempt = step.started, step.attempt
        if step.resolution == "happened":
            result = {"outcome": "happened", "by": SYSTEM, "note": "resolved before"}
            await self._finish(await finished_effect(self.blobs, started.step_id, result, reason="resolved"), work)
            return
        unknown = StepOutcomeUnknown(
            step_id=started.step_id,
            sent_digest=started.request_digest,
            sent_at=step.started_ms,
            probe=probe.name if probe else None,
        )
        await self.record(f"{started.step_id}/unknown/{attempt}", unknown)
        seen = await self._probed(probe)
        if probe is None or seen == "cannot_tell":
            raise await self._outcome_unknown(step, probe)
        resolved = StepResolved(
            step_id=started.step_id, outcome=seen, by=SYSTEM, note=f"probe {probe.name}", probe_result=seen
        )
        payloads: tuple[Payload, ...] = (resolved,)
        if seen == "happened":
            result = {"outcome": "happened", "by": SYSTEM, "note": resolved.note}
            payloads = (resolved, await finished_effect(self.blobs, started.step_id, result, reason="resolved"))
        await self.record(f"{started.step_id}/resolved/{attempt}", *payloads)

    async def _probed(self, probe: Probe | None) -> ProbeResult:
        if probe is None:
            return "cannot_tell"
        self.admit()
        try:
            return await probe.look()
        except OwnershipError:
            raise
        except FleetError:
            return "cannot_tell"

    async def _outcome_unknown(self, step: Step, probe: Probe | None) -> OutcomeUnknown:
        started = step.started
        sent = (await self.blobs.get(started.request_digest)).decode()
        looked = f"probe {probe.name} cannot tell" if probe else "it has no probe"
        return OutcomeUnknown(
            f"step {started.step_id} ({started.tool}.{started.op}) was sent and its outcome is not known; {looked}. "
            f"It is never repeated by itself: find out whether it happened, then run `fleet story resolve "
            f"{self.story_id} {started.step_id} --outcome happened|not_happened --note ...`. Sent: {sent[:2000]}",
            step_id=started.step_id,
            sent_digest=started.request_digest,
            sent_at=step.started_ms,
        )
