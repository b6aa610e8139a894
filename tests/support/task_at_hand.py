"""A task that a person does, in a story of a running fleet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.world import STORIES, World

_WHY = {"reason": "a person does this task"}


@dataclass
class TaskAtHand:
    """A task that the caller claimed; its story is paused but within `going_on`, as the team waits for nobody."""

    world: World
    story_id: str = ""
    task_id: str = ""

    @property
    def context(self) -> dict[str, str]:
        """What a TaskSpec says of the task."""
        return {"case_id": self.story_id, "task_id": self.task_id, "role": "developer"}

    def spec(self, *cmd: str, **more: Any) -> dict[str, Any]:
        """A TaskSpec for this command."""
        return {"image": "python", "cmd": list(cmd), "context": self.context, **more}

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Steps may start within the block; the task is claimed by the caller until the team has done it."""
        if not self._is_held():
            self._take()
        self.world.post(f"{STORIES}/{self.story_id}/resume", {})
        try:
            yield
        finally:
            self.world.post(f"{STORIES}/{self.story_id}/pause", _WHY)

    def left_to_the_team(self) -> str:
        """Id of the story, paused before its last gate: the team merged the work on the task, then the documents."""
        with self.going_on():
            self._grant("task_acceptance", "qa_passed")
            self.world.waiting(self.story_id, "docs_ready")
        left, self.story_id = self.story_id, ""
        return left

    def _grant(self, *gates: str) -> None:
        for gate in gates:
            request = self.world.waiting(self.story_id, gate)
            self.world.post(f"{STORIES}/{self.story_id}/approvals/{request}/grant", {"notes": "It is good enough"})

    def _is_held(self) -> bool:
        return bool(self.story_id) and self._task()["state"] == "implementing"

    def _task(self) -> dict[str, Any]:
        return self.world.get(f"{STORIES}/{self.story_id}/tasks/{self.task_id}")

    def _take(self) -> None:
        self.story_id = self.world.create()
        self.world.start(self.story_id)
        self._grant("approve_scope", "approve_design")
        self.task_id = self.world.wait(self._at_work)
        at = f"{STORIES}/{self.story_id}"
        self.world.post(f"{at}/pause", _WHY)
        self.world.post(f"{at}/tasks/{self.task_id}/release", {})
        self.world.post(f"{at}/tasks/{self.task_id}/claim", {"role": "developer"})

    def _at_work(self) -> str | None:
        tasks = self.world.show(self.story_id)["tasks"]
        return next((task["task_id"] for task in tasks if task["state"] == "implementing"), None)
