"""The script that starts a cloud's program: its credentials come from one file, and a missing program is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.inside import load, run_script

cloud = load("cloud_call")
SHOW = """#!{python}
import json, os, sys
print(json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ)}}))
if "--password" in sys.argv:
    print(open(sys.argv[sys.argv.index("--password") + 1][1:]).read())
    sys.exit({code})
"""


def program(folder: Path, name: str, code: int = 0) -> dict[str, str]:
    """The variables with which a program of this name is found, and nothing else."""
    (folder / "bin").mkdir()
    file = folder / "bin" / name
    file.write_text(SHOW.format(python=sys.executable, code=code))
    file.chmod(0o755)
    return {"PATH": str(folder / "bin"), "TMPDIR": str(folder)}


@pytest.mark.rule("RT-70")
@pytest.mark.parametrize(
    ("name", "variable"), [("aws", "AWS_SHARED_CREDENTIALS_FILE"), ("gcloud", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE")]
)
def test_program_is_told_where_its_credentials_are(tmp_path: Path, name: str, variable: str) -> None:
    env = program(tmp_path, name)
    done = run_script("cloud_call", name, "/run/secrets/one", "vm", "list", cwd=tmp_path, env=env)
    told = json.loads(done.stdout)

    assert (done.returncode, told["argv"]) == (0, ["vm", "list"])
    assert told["env"][variable] == "/run/secrets/one"


@pytest.mark.rule("RT-70")
@pytest.mark.parametrize("code", [0, 3])
def test_az_signs_in_before_its_command(tmp_path: Path, code: int) -> None:
    env = program(tmp_path, "az", code)
    (tmp_path / "sp").write_text(json.dumps({"appId": "me", "password": "never-shown", "tenant": "t"}))
    variables = {**env, "AZURE_CONFIG_DIR": str(tmp_path / "azure")}
    assert cloud.sign_in(str(tmp_path / "bin" / "az"), str(tmp_path / "sp"), variables) == code
    assert not (tmp_path / "azure" / "password").exists()
    done = run_script("cloud_call", "az", tmp_path / "sp", "vm", "list", cwd=tmp_path, env=env)

    assert done.returncode == code
    assert '"login", "--service-principal"' in done.stdout
    assert "never-shown" not in done.stdout.splitlines()[0]
    assert ('"argv": ["vm", "list"]' in done.stdout) == (code == 0)


@pytest.mark.rule("RT-70")
def test_missing_program_is_named(tmp_path: Path) -> None:
    done = run_script("cloud_call", "az", "/x", "vm", "list", cwd=tmp_path, env={"PATH": str(tmp_path)})

    assert (done.returncode, "azure-cli" in done.stderr) == (127, True)
    assert cloud.environment("az", "/x", {"A": "b"})["AZURE_CONFIG_DIR"] == "/tmp/azure"


@pytest.mark.rule("RT-70")
def test_program_takes_the_place_of_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, list[str]]] = []

    def start(path: str, argv: list[str], env: dict[str, str]) -> int:
        started.append((path, argv))
        return 5

    for name, value in program(tmp_path, "aws").items():
        monkeypatch.setenv(name, value)

    assert cloud.main(["aws", "/x", "s3", "ls"], start) == 5
    assert cloud.main(["gcloud", "/x", "projects", "list"], start) == 127
    assert started == [(str(tmp_path / "bin" / "aws"), ["aws", "s3", "ls"])]
    assert "google-cloud-cli" in capsys.readouterr().err
    (tmp_path / "bin" / "aws").rename(tmp_path / "bin" / "az")
    (tmp_path / "sp").write_text(json.dumps({"appId": "me", "password": "p", "tenant": "t"}))
    (tmp_path / "bin" / "az").write_text("#!/bin/sh\nexit 4\n")
    assert cloud.main(["az", str(tmp_path / "sp"), "vm", "list"], start) == 4
