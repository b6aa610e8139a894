"""config/council.yaml: what it ships, and what it refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fleet.council.config import CouncilConfig, CouncilDefaults
from tests.support.rules import files


def test_shipped_config_has_the_defaults_of_the_specification():
    config = files().load("council.yaml", CouncilConfig)
    found = config.defaults
    assert (found.num_agents, found.rounds, found.timeout_seconds, found.double_ballot) == (3, 1, 900, True)
    assert config.veto_roles == ("qa", "architect")


@pytest.mark.rule("CN-12")
@pytest.mark.parametrize("count", [1, 4, 11])
def test_even_too_small_or_too_large_council_is_refused(count: int):
    with pytest.raises(ValidationError):
        CouncilDefaults(num_agents=count)
