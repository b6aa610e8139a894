"""A typed client of a fleet's HTTP interface. Its types and methods are those of docs/openapi.json."""

from __future__ import annotations

from pathlib import Path

from swe_fleet_client.calling import FleetProblem
from swe_fleet_client.operations import Operations

__all__ = ["FleetClient", "FleetProblem"]


class FleetClient(Operations):
    """What a program of yours asks of a fleet.

    with FleetClient("http://127.0.0.1:8000", token) as fleet:
        story = fleet.create_story(body={"title": "As a reader, I want a word count"})
        for event in fleet.watch(story["story_id"]):
            print(event["type"])
    """

    @classmethod
    def at_home(cls, url: str, home: Path) -> FleetClient:
        """A client with the token of the local user, which lies in the FLEET_HOME that `fleet up` used."""
        return cls(url, (home / "token").read_text().strip())
