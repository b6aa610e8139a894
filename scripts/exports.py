"""Write tests/house/exports.json: what each package exports. A name that is not in it is private."""

from __future__ import annotations

import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tests" / "house" / "exports.json"
PACKAGES = ("fleet", "actors", "serve_apps", "cluster")


def packages(root: Path = ROOT) -> list[str]:
    """Every package of the product by dotted name; scripts that run inside the sandbox are no package."""
    folders = [folder.parent for top in PACKAGES for folder in (root / top).rglob("__init__.py")]
    return sorted(".".join(folder.relative_to(root).parts) for folder in folders)


def exports(root: Path = ROOT) -> dict[str, list[str]]:
    """Package -> its `__all__`, read without importing it."""
    return {name: listed_in(root.joinpath(*name.split("."), "__init__.py").read_text()) for name in packages(root)}


def listed_in(source: str) -> list[str]:
    """The names in the `__all__` of a module, sorted; empty where it has none."""
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return sorted(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return sorted(ast.literal_eval(value))
            case _:
                continue
    return []


def main() -> int:
    """Write the snapshot again."""
    SNAPSHOT.write_text(json.dumps(exports(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
