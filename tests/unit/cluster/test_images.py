"""The images of a cluster, read as files, and the script that builds them against programs that stand in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts import images, lock

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "cluster" / "images"
FILES = sorted(FOLDER.glob("*.Containerfile"))
BASE = f"docker.io/library/python@sha256:{'a' * 64}"


class Instruction(NamedTuple):
    """One instruction of a Containerfile."""

    name: str
    text: str


def instructions(file: Path) -> list[Instruction]:
    """All of them, with their continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_every_image_that_is_built_has_a_file() -> None:
    assert {file.name.removesuffix(".Containerfile") for file in FILES} == images.BASES.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_base_is_an_argument_without_a_default(file: Path) -> None:
    found = instructions(file)
    bases = [i.text.split(" AS ")[0] for i in found if i.name == "FROM"]
    arguments = [i.text for i in found[: [i.name for i in found].index("FROM")] if i.name == "ARG"]

    # Without a default nobody builds on a base that was not named by digest.
    assert bases
    assert {base.strip("${}") for base in bases} == set(arguments)
    assert not [a for a in arguments if "=" in a]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_image_runs_as_nobody_and_fetches_nothing_unchecked(file: Path) -> None:
    found = instructions(file)
    text = " ".join(i.text for i in found)
    last_user = [i.text for i in found if i.name == "USER"][-1]

    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", last_user)
    assert "ADD" not in {i.name for i in found}
    assert not re.search(r"https?://|\bcurl\b|\bwget\b|:latest\b|--trusted-host|--index-url", text)
    assert not re.search(r"(PASSWORD|TOKEN|SECRET|API_KEY)", text)
    assert {i.name for i in found} <= {"ARG", "FROM", "LABEL", "RUN", "COPY", "ENV", "WORKDIR", "USER"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_packages_are_checked_by_hash(file: Path) -> None:
    installs = [
        part
        for i in instructions(file)
        if i.name == "RUN"
        for part in i.text.split("&&")
        if re.search(r"pip install|\bnpm (ci|i|install)\b", part)
    ]

    assert installs
    for part in installs:
        is_locked = "--require-hashes" in part or "npm ci" in part
        is_ours = "--no-deps --no-build-isolation" in part or "--no-index --no-deps /tmp/wheel/" in part
        assert is_locked or is_ours, part


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there(file: Path) -> None:
    for i in instructions(file):
        if i.name == "COPY" and not i.text.startswith("--from="):
            assert [s for s in i.text.split()[:-1] if not (ROOT / s).exists()] == []


def test_image_proves_after_its_user_is_set_that_its_programs_start() -> None:
    for file in FILES:
        found = instructions(file)
        last_user = max(n for n, i in enumerate(found) if i.name == "USER")
        assert "RUN" in {i.name for i in found[last_user:]}, file.name


def test_toolbox_probes_every_program_that_it_is_made_for() -> None:
    probed = (FOLDER / "toolbox" / "probe.sh").read_text()

    for program in ("git", "python3", "pytest", "node", "jest", "eslint", "go", "rustc", "cargo", "chromium", "ruff"):
        assert re.search(rf"^(python3 -m )?{program}( version| --version)", probed, re.MULTILINE), program
    subprocess.run(["sh", "-n", str(FOLDER / "toolbox" / "probe.sh")], check=True)


def test_probe_ends_with_the_first_program_that_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", str(FOLDER / "toolbox" / "probe.sh")], env={"PATH": str(tmp_path)}, capture_output=True, check=False
    )

    assert done.returncode == 127


@pytest.mark.parametrize("name", ["build.txt", "toolbox/python.txt"])
def test_packages_of_a_list_come_from_the_lock_with_their_hashes(name: str) -> None:
    script = [sys.executable, "toolbox/from_lock.py", str(ROOT / "requirements-dev.lock"), name]
    listed = subprocess.run(script, cwd=FOLDER, check=True, capture_output=True, text=True).stdout
    names = (FOLDER / name).read_text().split()

    entries = re.split(r"\n(?=\S)", listed.strip())
    assert [re.split("[= ]", entry)[0] for entry in entries] == names
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_image_installs_no_whole_lock_but_the_one_that_runs_a_fleet(file: Path) -> None:
    locks = re.findall(r"-r (\S+)", file.read_text())

    assert {Path(lock).name for lock in locks} <= {"requirements.lock", "locked.txt", "gpu.lock"}


def test_package_that_the_lock_lacks_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "wanted").write_text("no-such-package\n")
    script = [sys.executable, str(FOLDER / "toolbox" / "from_lock.py"), str(ROOT / "requirements-dev.lock"), "wanted"]

    done = subprocess.run(script, cwd=tmp_path, check=False, capture_output=True, text=True)

    assert (done.returncode, "lacks no-such-package" in done.stderr) == (1, True)


def test_node_packages_of_the_toolbox_have_hashes_and_name_no_host() -> None:
    lock = json.loads((FOLDER / "toolbox" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}

    assert {"node_modules/jest", "node_modules/eslint"} <= packages.keys()
    # npm writes an entry without a version for what its registry did not have, and then refuses the file.
    assert [name for name, entry in packages.items() if not {"version", "integrity"} <= entry.keys()] == []
    assert "://" not in json.dumps([entry.get("resolved") for entry in packages.values()])


def test_environment_of_vllm_has_the_ray_of_the_lock() -> None:
    locks = [path.read_text() for path in (ROOT / "requirements.lock", FOLDER / "gpu.lock")]
    rays = [re.findall(r"^ray==(\S+)", text, re.MULTILINE) for text in locks]
    names = {re.split(r"[<>=!~;\[ ]", line)[0] for line in lock.shared_with_vllm()}

    assert len(rays[0]) == 1
    assert rays[0] == rays[1]
    assert {"pydantic", "redis", "openai"} <= names
    assert {"vllm", *names} <= set(re.findall(r"^([\w.-]+)==", locks[1], re.MULTILINE))


# The script, with programs that write down how they were called.


def stand_in(folder: Path, name: str, *, code: int = 0) -> None:
    """A program that writes down its arguments, and says a digest."""
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\necho found@sha256:1\nexit {code}\n')
    file.chmod(0o700)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for programs, with git."""
    found = shutil.which("git")
    assert found
    (tmp_path / "git").symlink_to(found)
    return tmp_path


def calls(folder: Path) -> list[str]:
    """How the programs were called."""
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_without_an_engine_the_script_says_what_to_install(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["build"], {"PATH": str(programs)}) == 2

    assert "neither podman nor docker is here: install one" in capsys.readouterr().err


@pytest.mark.parametrize("base", ["", "python:3.13-slim", "python@sha256:1", f"python:latest@sha1:{'a' * 64}"])
def test_base_without_a_digest_is_refused(programs: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(programs, "docker")

    assert images.main(["build", "head"], {"PATH": str(programs), "PYTHON_IMAGE": base}) == 2

    assert "PYTHON_IMAGE has to name the base of the head image by digest" in capsys.readouterr().err
    assert calls(programs) == []


def test_unknown_image_is_refused(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["build", "heads"], {"PATH": str(programs)}) == 2

    assert "no image heads; known: head, gpu, toolbox" in capsys.readouterr().err


def test_head_is_built_before_what_goes_on_top_of_it(programs: Path) -> None:
    stand_in(programs, "podman")
    stand_in(programs, "docker")

    assert images.main(["build", "gpu", "head"], {"PATH": str(programs), "PYTHON_IMAGE": BASE}) == 0

    first, second = calls(programs)
    assert first.startswith("podman build --file ")
    assert f"--build-arg=PYTHON_IMAGE={BASE}" in first
    head = re.search(r"--tag (\S+/head:\w+)", first)
    assert head
    assert f"--build-arg=HEAD_IMAGE={head[1]}" in second


def test_engine_that_fails_ends_the_build(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(programs, "podman", code=3)

    assert images.main(["build", "head"], {"PATH": str(programs), "PYTHON_IMAGE": BASE}) == 1

    assert "podman ended with 3" in capsys.readouterr().err


def test_scan_needs_trivy(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(programs, "podman")

    assert images.main(["scan", "head"], {"PATH": str(programs)}) == 2

    assert "trivy is not here" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["scan", "push"])
def test_image_that_was_not_built_is_named_with_the_mend(
    programs: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(programs, "podman", code=125)
    stand_in(programs, "trivy")

    assert images.main([what, "head"], {"PATH": str(programs), "REGISTRY": "registry.example/team"}) == 2

    assert "no head image of the last commit" in capsys.readouterr().err
    assert [call.split()[:3] for call in calls(programs)] == [["podman", "image", "inspect"]]


def test_registry_that_does_not_take_an_image_ends_the_push(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(programs, "trivy")
    engine = programs / "podman"
    engine.write_text('#!/bin/sh\n[ "$1" != push ] || { echo "connection refused" >&2; exit 125; }\n')
    engine.chmod(0o700)

    assert images.main(["push", "head"], {"PATH": str(programs), "REGISTRY": "127.0.0.1:1/team"}) == 1

    assert "podman ended with 125" in capsys.readouterr().err


def test_nothing_is_pushed_that_was_not_scanned(programs: Path) -> None:
    stand_in(programs, "podman")
    stand_in(programs, "trivy", code=1)

    assert images.main(["push", "head"], {"PATH": str(programs), "REGISTRY": "registry.example/team"}) == 1

    assert not [call for call in calls(programs) if " push " in call]


def test_push_scans_for_critical_findings_and_any_secret_and_prints_the_digest(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(programs, "podman")
    stand_in(programs, "trivy")

    assert images.main(["push", "head"], {"PATH": str(programs), "REGISTRY": "registry.example/team"}) == 0

    scans = [call for call in calls(programs) if call.startswith("trivy")]
    assert [s for s in scans if "--severity CRITICAL --exit-code 1" in s]
    assert [s for s in scans if "--scanners secret --exit-code 1" in s and "--severity" not in s]
    assert [s for s in scans if "--format spdx-json" in s]
    assert re.search(r"podman push registry.example/team/swe-fleet/head:\w+", "\n".join(calls(programs)))
    assert "images: head: found@sha256:1" in capsys.readouterr().out


@pytest.mark.parametrize("registry", ["", "https://registry.example", "a b"])
def test_registry_of_the_wrong_form_is_refused(
    programs: Path, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(programs, "podman")

    assert images.main(["push"], {"PATH": str(programs), "REGISTRY": registry}) == 2

    assert "REGISTRY has to name where images go" in capsys.readouterr().err
