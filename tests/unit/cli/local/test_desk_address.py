"""The address that `fleet up` prints: with the token only for the person at this machine's terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.cli.local.lifecycle import desk_address, is_desk_built

FRONT = "http://127.0.0.1:8000"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("a-token/with+signs\n")
    return path


@pytest.mark.parametrize("url", [FRONT, "http://localhost:1", "http://[::1]:8000"])
def test_address_at_a_terminal_holds_the_token_after_the_hash(token_file: Path, url: str):
    assert desk_address(url, token_file, is_terminal=True) == f"{url}/#token=a-token%2Fwith%2Bsigns"


def test_address_in_a_file_holds_no_token(token_file: Path):
    assert desk_address(FRONT, token_file, is_terminal=False) == FRONT


@pytest.mark.parametrize("url", ["http://0.0.0.0:8000", "http://fleet.example:8000"])
def test_address_that_others_reach_holds_no_token(token_file: Path, url: str):
    assert desk_address(url, token_file, is_terminal=True) == url


def test_address_without_a_token_is_that_of_the_login_page(tmp_path: Path):
    assert desk_address(FRONT, tmp_path / "token", is_terminal=True) == FRONT


def test_fleet_without_a_front_has_no_address(token_file: Path):
    assert desk_address(None, token_file, is_terminal=True) is None


def test_desk_is_built_when_its_first_page_is_there():
    page = Path(__file__).resolve().parents[4] / "serve_apps" / "ui" / "dist" / "index.html"
    assert is_desk_built() == page.is_file()
