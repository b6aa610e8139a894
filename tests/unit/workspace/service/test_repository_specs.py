"""Runs about a repository on another machine, as specifications."""

from __future__ import annotations

import json

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput
from fleet.policy.commands.git import GitTarget, parse_git_address
from fleet.policy.runs.spec import Grantee
from fleet.workspace.service.repository_specs import FETCHED, fetch_spec, fetched_of, push_spec

ADDRESS = parse_git_address("https://git.example.org/team/app.git")
TARGET = GitTarget(user="oauth2", credentials="secret://forge-token")
PACK, INDEX = digest_of(b"pack"), digest_of(b"index")
COMMIT = "0c" * 20


@pytest.mark.rule("RC-70", "RT-65")
def test_fetch_reaches_its_host_alone_and_names_the_secret_only() -> None:
    spec = fetch_spec(ADDRESS, TARGET, ref="main")
    assert spec.hosts == ("git.example.org:443",)
    assert spec.grantee == Grantee(role="devops", tool="git", op="fetch")
    assert spec.argv[spec.argv.index("--token") + 1] == "secret://forge-token"
    assert (spec.tree, spec.mounts, spec.keep_tree, spec.artifacts) == (None, (), False, FETCHED)
    assert spec.argv[spec.argv.index("--max-bytes") + 1] == str(spec.limits.file_bytes)


def test_fetch_without_credentials_names_no_grantee_and_a_list_keeps_nothing() -> None:
    spec = fetch_spec(ADDRESS, GitTarget(), is_listing=True, beside="a" * 64)
    assert spec.grantee is None
    assert "--token" not in spec.argv
    assert "--list" in spec.argv
    assert (spec.artifacts, len(spec.mounts)) == ((), 1)


@pytest.mark.rule("RC-77", "RT-58")
def test_push_sees_commits_and_no_workspace() -> None:
    spec = push_spec(
        "a" * 64, [PACK], address=ADDRESS, target=TARGET, branch="fleet/st-1", commit=COMMIT, expected_old="0d" * 20
    )
    assert spec.tree is None
    assert [mount.kind for mount in spec.mounts] == ["repo", "blob"]
    assert spec.argv[spec.argv.index("--ref") + 1] == "refs/heads/fleet/st-1"
    assert spec.argv[spec.argv.index("--expected") + 1] == "0d" * 20
    assert spec.grantee == Grantee(role="devops", tool="git", op="push_branch")


@pytest.mark.rule("RT-58")
def test_ssh_address_takes_a_key_and_the_keys_of_the_host() -> None:
    address = parse_git_address("git@git.example.org:team/app.git")
    with pytest.raises(InvalidInput, match=r"no host_keys for 'git\.example\.org/team/app'"):
        fetch_spec(address, TARGET)
    key = "ssh-ed25519 " + "A" * 68
    argv = fetch_spec(address, TARGET.model_copy(update={"host_keys": (key,)})).argv
    assert argv[argv.index("--host-key") + 1] == key
    assert "--user" not in argv


def facts(**changes: object) -> bytes:
    return json.dumps(
        {"schema": 1, "commit": COMMIT, "branch": "main", "refs": {"refs/heads/main": COMMIT}} | changes
    ).encode()


@pytest.mark.rule("RC-70")
def test_facts_of_a_fetch_are_taken_over_in_their_form_only() -> None:
    found = fetched_of(ADDRESS, facts(), pack=PACK, pack_index=INDEX)
    assert found is not None
    assert (found.url, found.commit, found.branch, found.pack) == (ADDRESS.url, COMMIT, "main", PACK)
    for wrong in (
        b"",
        b"[]",
        facts(commit="main"),
        facts(branch="a\nb"),
        facts(refs={"refs/heads/a\nffff refs/heads/b": COMMIT}),
        facts(refs={"refs/heads/main": "x"}),
    ):
        assert fetched_of(ADDRESS, wrong, pack=PACK, pack_index=INDEX) is None
