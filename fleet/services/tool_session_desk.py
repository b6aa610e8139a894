"""Tool sessions: who acts, in which role, on which story, and what is offered to them (RT-68)."""

from __future__ import annotations

from fleet.errors import IdempotencyMismatch, NotFound, PolicyDenied
from fleet.ids import Digest, EntityId, Principal, StoryId, derive_id
from fleet.ports import SESSION_IDLE_S, ToolOrigin, ToolSession
from fleet.services.tool_desk_steps import DeskSteps
from fleet.services.tool_facts import roles_held
from fleet.story import session_tree
from fleet.tools import Capability, Policy, offered

__all__ = ["ToolSessionDesk"]


class ToolSessionDesk(DeskSteps):
    """Sessions of principals, and their workspaces."""

    async def open_session(
        self,
        story_id: StoryId,
        *,
        principal: Principal,
        as_role: str,
        key: str,
        task_id: EntityId | None = None,
        is_read_only: bool = False,
    ) -> ToolSession:
        """A session bound to principal, role, story, task, phase and epoch, with the operations offered (RT-68).

        The same principal and key give the same session while it lives.

        Raises StoryNotFound; NotFound: the story has no such task; PolicyDenied: the role is not held or not declared;
        IdempotencyMismatch: the key opened another session of the story.
        """
        state = await self._planning.state(story_id)
        held = roles_held(self._policy, principal, self._roles_of(principal))
        _check_role(self._policy, principal, held, as_role)
        if task_id is not None and task_id not in state.tasks:
            raise NotFound(f"story {story_id} has no task {task_id}", task_id=task_id)
        phase = self._fsm.lifecycles[state.lifecycle].phase(state.state)
        found = offered(self._policy, as_role, phase=phase, is_read_only=is_read_only)
        session = ToolSession(
            session_id=derive_id("se", story_id, f"{principal}\0{key}\0{state.epoch}"),
            principal=principal,
            role=as_role,
            story_id=story_id,
            task_id=task_id,
            phase=phase,
            epoch=state.epoch,
            is_read_only=is_read_only,
            offered=tuple(c.name for c in found),
        )
        opened = await self._sessions.open(session, idle_s=SESSION_IDLE_S)
        wanted = (as_role, task_id, is_read_only)
        if (opened.role, opened.task_id, opened.is_read_only) != wanted:
            raise IdempotencyMismatch(f"key {key!r} opened another session: send a new one with a new key")
        await self._sessions.remember(opened.session_id, ToolOrigin(story_id=story_id, principal=principal))
        return opened

    async def session(self, session_id: EntityId, *, principal: Principal) -> ToolSession:
        """The principal's own session, alive for another 3,600 s; NotFound when it is over, with its task or story."""
        found = await self._sessions.use(session_id, idle_s=SESSION_IDLE_S)
        if found is None or found.principal != principal:
            raise NotFound(f"there is no tool session {session_id}: open one", session_id=session_id)
        state = await self._planning.state(found.story_id)
        task = state.tasks.get(found.task_id or "")
        if state.is_over or (task is not None and task.is_terminal):
            await self._sessions.close(session_id)
            raise NotFound(f"tool session {session_id} ended with its task or story", session_id=session_id)
        return found

    async def close_session(self, session_id: EntityId, *, principal: Principal) -> None:
        """The session is over, also when it was before; NotFound when it is not the principal's."""
        await self.story_of(session_id, principal=principal)
        await self._sessions.close(session_id)

    async def tools(self, session_id: EntityId, *, principal: Principal) -> tuple[Capability, ...]:
        """The operations that were offered when the session was opened, with their typed arguments (RT-35)."""
        session = await self.session(session_id, principal=principal)
        known = self._policy.capabilities
        return tuple(known[name] for name in session.offered if name in known)

    async def tree_of(self, session_id: EntityId, *, principal: Principal) -> Digest | None:
        """The session's workspace now: the tree of its last finished call, or the one of its task or story."""
        session = await self.session(session_id, principal=principal)
        return session_tree(await self._planning.state(session.story_id), session.session_id, session.task_id)


def _check_role(policy: Policy, principal: Principal, held: frozenset[str], role: str) -> None:
    if role not in policy.roles.roles or role not in held:
        raise PolicyDenied(f"{principal} does not hold role {role!r}", rule_id="role_not_held", role=role)
