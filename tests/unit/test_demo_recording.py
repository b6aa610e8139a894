"""The recording of the demo fits the prompts of this version: `python -m scripts.record --again` renews it."""

from __future__ import annotations

from pathlib import Path

import yaml

from fleet.engineering.tools import OFFERS
from fleet.models.engines.recorded import path_in, place_of, read_about, recordings_in
from fleet.models.prompts.prompt import kind_of, parse_prompts
from scripts.examples import LIBRARY, ROOT, configuration

RECORDINGS = list(recordings_in(LIBRARY.replies))
AGAIN = "renew the recording with `python -m scripts.record --again`"


def test_each_reply_lies_at_its_place_under_the_digest_of_its_request() -> None:
    assert len(RECORDINGS) > 20
    for path, recording in RECORDINGS:
        assert path == path_in(LIBRARY.replies, recording.place, recording.request.digest)
        assert recording.place == place_of(recording.place)


def test_rules_and_tools_of_the_prompts_are_those_of_this_version() -> None:
    texts = {f"prompts/{path.name}": path.read_text() for path in (ROOT / "config" / "prompts").glob("*.md")}
    prompts = parse_prompts(texts)
    for _, recording in RECORDINGS:
        kind = kind_of(recording.request)
        system = recording.request.messages[0].content.partition("\n")[2]
        assert system == prompts.template(kind).system, AGAIN
        if kind == "engineer":
            assert recording.request.tools == OFFERS, AGAIN


def test_engineers_worked_in_three_sessions_and_differ() -> None:
    turns = [r for _, r in RECORDINGS if kind_of(r.request) == "engineer"]
    sessions = {recording.place.rpartition("/")[0] for recording in turns}
    assert sessions == {f"co/draft/developer-00{number}" for number in (1, 2, 3)}
    written = {
        use.arguments
        for recording in turns
        for use in recording.reply.tool_uses
        if use.name == "write" and "filters/literals.py" in use.arguments
    }
    assert len(written) == 3
    assert {recording.reply.model for _, recording in RECORDINGS} == {"a-large-general-model"}
    about = read_about(LIBRARY.replies)
    assert about is not None
    assert about.strategy == "session"


def test_configuration_of_the_demo_differs_only_where_it_says(tmp_path: Path) -> None:
    own = configuration(tmp_path)
    assert {path.name for path in own.iterdir()} == {"planning.yaml", "models.yaml"}
    for name, changed in (("planning.yaml", {"artifacts": "off"}), ("models.yaml", {})):
        packaged = yaml.safe_load((ROOT / "config" / name).read_text())
        assert yaml.safe_load((own / name).read_text()) == {**packaged, **changed}
