"""A submitted story, as it travels to the cluster."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import CommandId, Principal

PLAN_FILE = "plan.json"


class SubmittedPlan(BaseModel):
    """What a submitted story is and how it is run. The same plan is the same job while that is not over.

    A job that runs a second time, because its node died or its owner submitted it once more, goes on with the story
    of the first time: whose job created a story stands in the log, as the command that did it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    story: dict[str, Any]
    """Its text."""
    repo: str
    """Path of the repository, as the nodes of the sandbox see it."""
    principal: Principal
    """Who asks for it."""
    model: str | None = None
    delegate: tuple[str, ...] = ()
    toolchain: str = "python"
    limits: str = ""
    fetches: Annotated[bool, Field(exclude_if=bool)] = True
    """Whether the packages of its lockfile are fetched. What is usual is not written: plans of before stay the same."""
    submission: str = ""
    """Which of the submissions of this plan it is; another one may run the same story anew once that is closed."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; every submission of the same plan has the same."""
        return digest_of_json(self.model_dump(mode="json", exclude={"submission"})).hex[:16]

    @property
    def create_key(self) -> str:
        """Key of the command that creates the story."""
        return f"submit/{self.digest}/{self.submission}"

    def created(self, command_id: CommandId, is_closed: bool) -> bool:
        """Whether the story that this command created is the one to go on with."""
        if command_id == f"{self.principal}/{self.create_key}":
            return True
        return not is_closed and command_id.startswith(f"{self.principal}/submit/{self.digest}/")
