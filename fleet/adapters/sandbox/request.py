"""What a run may ask for: refused here, before anything is started (RC-2, RC-3, RC-4, check 44)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.adapters.sandbox.launch import FIXED_ENV
from fleet.errors import InvalidInput
from fleet.tools import BlobMount, RunSpec, check_path

__all__ = ["check_command", "check_env", "check_spec"]

_OVERRIDABLE = frozenset({"LANG", "TERM", "PYTHONDONTWRITEBYTECODE"})
_REFUSED_NAMES = frozenset({"GLIBC_TUNABLES", "GCONV_PATH", "BASH_ENV", "ENV", "PYTHONSTARTUP", "PYTHONHOME"})
_MAX_VARIABLES = 64
_MAX_VALUE_BYTES = 8 << 10
_MAX_ARGUMENT_BYTES = 128 << 10
_MAX_COMMAND_BYTES = 1 << 20


def check_spec(spec: RunSpec) -> None:
    """Return when the specification asks for nothing that no run may have; InvalidInput names what it is (S28)."""
    check_command(spec.argv)
    check_env(spec.env)
    for path in spec.artifacts:
        check_path(path)
    targets = [m.target if isinstance(m, BlobMount) else "/repo.git" for m in spec.mounts]
    if len(set(targets)) != len(targets) or any(t.endswith(("/.", "/..")) for t in targets):
        raise InvalidInput(
            f"mounts of the run: two of them have one target, or one has no name: {targets}", field="mounts"
        )
    if spec.toolchain != "python" and not spec.toolchain.startswith("env:"):
        raise InvalidInput(
            f"{spec.toolchain!r} is no toolchain: use python or env:<path>",
            field="toolchain",
            value=spec.toolchain,
            allowed=["python", "env:<path>"],
        )


def check_env(env: Mapping[str, str]) -> None:
    """Return when the variables may go inside (RC-3, check 44).

    Raises:
        InvalidInput: a loader or proxy variable, one that the sandbox sets itself, NUL, or over a limit.
    """
    problems = [f"{name} may not be set" for name in env if _is_refused(name)]
    problems += [f"{name} holds a NUL or over 8 KiB" for name, v in env.items() if _is_bad_text(v, _MAX_VALUE_BYTES)]
    if len(env) > _MAX_VARIABLES:
        problems.append(f"more than {_MAX_VARIABLES} variables")
    if problems:
        raise InvalidInput(f"env of the run: {'; '.join(problems)}", field="env", problems=problems)


def _is_refused(name: str) -> bool:
    fixed = name in FIXED_ENV and name not in _OVERRIDABLE
    return fixed or name in _REFUSED_NAMES or name.startswith("LD_") or name.endswith("_PROXY")


def check_command(argv: Sequence[str]) -> None:
    """Return when the kernel can be given this command; InvalidInput for NUL, an empty program, or over a limit."""
    total = sum(len(a.encode(errors="surrogateescape")) + 1 for a in argv)
    if not argv[0] or total > _MAX_COMMAND_BYTES or any(_is_bad_text(a, _MAX_ARGUMENT_BYTES - 1) for a in argv):
        raise InvalidInput(
            "argv of the run: an argument is over 128 KiB or holds a NUL, or all are over 1 MiB: "
            "put large input into a file of the tree",
            field="argv",
        )


def _is_bad_text(text: str, max_bytes: int) -> bool:
    return "\0" in text or len(text.encode(errors="surrogateescape")) > max_bytes
