"""Fetches what a lockfile asks for and packs it as one archive; runs inside the one sandbox that reaches registries.

Usage: build_layer.py LANGUAGE [USERCONFIG]   in /workspace, which holds manifests and lockfiles and nothing else.
USERCONFIG is a file with the addresses of npm. The archive is `layer.tar`. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

ARCHIVE, FACTS = "layer.tar", "layer.json"
LAYER = "layer"
"""Folder of the workspace that becomes the layer."""
ENVIRONMENT = "/environment"
"""Where runs will find it."""
PIP = "/inputs/pip.whl"
REQUIREMENTS = "requirements.layer.txt"
_UNSUITABLE = 65

Call = Callable[[Sequence[str], dict[str, str]], int]


def run(argv: Sequence[str], env: dict[str, str]) -> int:
    """The exit code of the command, whose output is ours."""
    return subprocess.run(list(argv), env={**os.environ, **env}, stdin=subprocess.DEVNULL, check=False).returncode


def python(root: Path, call: Call) -> int:
    """A virtual environment with the requirements; what it lacks comes from the fleet's own tools behind it."""
    layer = root / LAYER
    scratch = root / "tmp"
    scratch.mkdir(exist_ok=True)
    own = {"TMPDIR": str(scratch)}
    if code := call([sys.executable, "-m", "venv", "--without-pip", str(layer)], own):
        return code
    interpreter = str(layer / "bin" / "python")
    install = [interpreter, f"{PIP}/pip", "install", "--no-input", "--no-compile", "--no-cache-dir"]
    install += ["--progress-bar", "off", "--no-warn-script-location", "-r", REQUIREMENTS]
    if code := call(install, own):
        return code
    library = next((layer / "lib").glob("python3.*"))
    site = library / "site-packages"
    (site / "fleet-tools.pth").write_text(f"/toolchain/lib/{library.name}/site-packages\n")
    for script in (layer / "bin").iterdir():
        moved(script, str(layer))
    compiled = ["-q", "--invalidation-mode", "unchecked-hash", "-s", str(layer), "-p", ENVIRONMENT, str(site)]
    call([interpreter, "-m", "compileall", *compiled], own)
    return 0


def moved(script: Path, old: str) -> None:
    """A script that names the interpreter at its old place names it where runs find it."""
    if script.is_symlink() or not script.is_file():
        return
    content = script.read_bytes()
    if content.startswith(b"#!"):
        script.write_bytes(content.replace(old.encode(), ENVIRONMENT.encode()))


def node(root: Path, call: Call) -> int:
    """The packages of package-lock.json; their own scripts do not run, because they would have a network."""
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    if code := call(install, {"npm_config_cache": str(root / "tmp"), "CI": "1"}):
        return code
    (root / LAYER).mkdir()
    (root / "node_modules").mkdir(exist_ok=True)
    (root / "node_modules").rename(root / LAYER / "node_modules")
    return 0


def go(root: Path, call: Call) -> int:
    """The module cache of go.sum."""
    env = {
        "GOMODCACHE": str(root / LAYER / "mod"),
        "GOFLAGS": "-modcacherw",
        "GOPATH": str(root / "tmp"),
        "GO111MODULE": "on",
    }
    env |= {"GOCACHE": str(root / "tmp" / "cache"), "GOTOOLCHAIN": "local"}
    (root / LAYER / "mod").mkdir(parents=True)
    return call(["go", "mod", "download"], env)


def rust(root: Path, call: Call) -> int:
    """The registry sources of Cargo.lock."""
    (root / LAYER / "cargo").mkdir(parents=True)
    # cargo reads no manifest without a target; the sources are not here, and are not needed to fetch.
    for manifest in root.rglob("Cargo.toml"):
        if LAYER not in manifest.relative_to(root).parts:
            (manifest.parent / "src").mkdir(exist_ok=True)
            (manifest.parent / "src" / "lib.rs").touch()
            (manifest.parent / "src" / "main.rs").write_text("fn main() {}\n")
    locked = ["--locked"] if (root / "Cargo.lock").is_file() else []
    return call(["cargo", "fetch", *locked], {"CARGO_HOME": str(root / LAYER / "cargo")})


BUILDERS: dict[str, Callable[[Path, Call], int]] = {"python": python, "node": node, "go": go, "rust": rust}


def pack(root: Path) -> None:
    """The layer is one archive, without links that lead out of it, and its facts lie beside it."""
    count = size = 0
    with tarfile.open(root / ARCHIVE, "w") as archive:
        for path in sorted((root / LAYER).rglob("*")):
            if path.is_symlink() and path.readlink().is_absolute():
                continue
            archive.add(path, arcname=str(path.relative_to(root / LAYER)), recursive=False)
            if path.is_file() and not path.is_symlink():
                count, size = count + 1, size + path.stat().st_size
    (root / FACTS).write_text(json.dumps({"files": count, "bytes": size}))


def main(argv: Sequence[str], *, root: Path, call: Call = run) -> int:
    """Exit code of the first command that failed; 0 when the archive is there."""
    builder = BUILDERS.get(argv[0]) if argv else None
    if builder is None:
        sys.stderr.write(f"no layer is built for {argv[:1]}\n")
        return _UNSUITABLE
    if len(argv) > 1:
        os.environ["npm_config_userconfig"] = argv[1]  # noqa: SIM112
    if code := builder(root, call):
        return code
    pack(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], root=Path.cwd()))
