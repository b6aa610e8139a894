"""Write the messages of the gRPC front from serve_apps/rpc/v1/*.proto; `--check` only compares them.

python scripts/rpc.py            after a .proto file changed
python scripts/rpc.py --check    exit code 1 when the messages are not what the files say
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("serve_apps/rpc/v1")


def main(arguments: list[str]) -> int:
    """0 when the messages are what the files say."""
    if find_spec("grpc_tools") is None:
        sys.stderr.write("grpcio-tools is not installed: run `make setup`\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        compile_protos(Path(folder))
        fresh = {path.name: path.read_text() for path in (Path(folder) / FOLDER).glob("*_pb2.py")}
    old = {name for name, text in fresh.items() if not _same(ROOT / FOLDER / name, text)}
    if "--check" not in arguments:
        for name in old:
            (ROOT / FOLDER / name).write_text(fresh[name])
        return 0
    for name in sorted(old):
        sys.stderr.write(f"{FOLDER / name} is out of date: run `python scripts/rpc.py`\n")
    return 1 if old else 0


def compile_protos(out: Path, *, with_stubs: bool = False) -> None:
    """Messages below `out`, and with `with_stubs` the stubs of clients too."""
    import grpc_tools

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    annotations = Path(next(iter(find_spec("google.api").submodule_search_locations))).parents[1]  # type: ignore[union-attr,arg-type]
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / FOLDER).glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-I{well_known}", f"-I{annotations}"]
    command += [f"--python_out={out}", *([f"--grpc_python_out={out}"] if with_stubs else []), *protos]
    subprocess.run(command, cwd=ROOT, check=True)


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
