"""What a run may ask for: refused here, before anything is started (RC-2, RC-3, RC-4, check 44)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import BlobMount, RunSpec
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, layer_named
from fleet.policy.secret_refs import SECRETS_FOLDER, plan_delivery
from fleet.sandbox.backends.bubblewrap.launch import FIXED_ENV
from fleet.secrets.port import SecretDelivery
from fleet.trees.tree import check_path

MAX_STDIN_BYTES = 10_000_000
"""A larger input is mounted as a blob."""

_OVERRIDABLE = frozenset({"LANG", "TERM", "PYTHONDONTWRITEBYTECODE"})
_REFUSED_NAMES = frozenset({"GLIBC_TUNABLES", "GCONV_PATH", "BASH_ENV", "ENV", "PYTHONSTARTUP", "PYTHONHOME"})
_MAX_VARIABLES = 64
_MAX_VALUE_BYTES = 8 << 10
_MAX_ARGUMENT_BYTES = 128 << 10
_MAX_COMMAND_BYTES = 1 << 20


def check_spec(
    spec: RunSpec,
    *,
    toolchains: Collection[str] = tuple(DEFAULT_TOOLCHAINS),
    has_sessions: bool = False,
    has_layers: bool = False,
) -> None:
    """Return when the specification asks for nothing that no run may have; InvalidInput names what it is (S28).

    Args:
        toolchains: names of the configured toolchains (RC-34).
        has_sessions: the backend can hold interactive runs.
        has_layers: the backend binds environment layers.
    """
    check_command(spec.argv)
    if spec.interactive and not has_sessions:
        raise InvalidInput("this sandbox holds no interactive runs: use the bubblewrap backend", field="interactive")
    if spec.interactive and spec.stdin is not None:
        raise InvalidInput("an interactive run gets its input while it runs: leave stdin out", field="stdin")
    check_env(spec.env)
    for path in (*spec.artifacts, *(() if spec.cwd == "." else (spec.cwd,))):
        check_path(path)
    targets = [m.target if isinstance(m, BlobMount) else "/repo.git" for m in spec.mounts]
    if len(set(targets)) != len(targets) or any(t.endswith(("/.", "/..")) for t in targets):
        raise InvalidInput(
            f"mounts of the run: two of them have one target, or one has no name: {targets}", field="mounts"
        )
    is_layer = layer_named(spec.toolchain) is not None
    if is_layer and not has_layers:
        raise InvalidInput(
            "this sandbox has no environment layers: use the bubblewrap backend",
            field="toolchain",
            value=spec.toolchain,
        )
    is_own = spec.toolchain.startswith("env:") or is_layer
    if spec.toolchain not in toolchains and not is_own:
        allowed = [*toolchains, "env:<path>", "layer:<language>:<key>"]
        raise InvalidInput(
            f"{spec.toolchain!r} is no toolchain: use one of {', '.join(allowed)}",
            field="toolchain",
            value=spec.toolchain,
            allowed=allowed,
        )


def check_delivery(spec: RunSpec, secrets: SecretDelivery | None) -> None:
    """Return when exactly what the specification refers to was resolved for it, and can be put in place (RT-65).

    Raises:
        InvalidInput: a reference has no value, a value has no reference, or a path is not below SECRETS_FOLDER.
    """
    plan = plan_delivery(spec.argv, spec.env)
    planned = (frozenset(plan.secret_env), frozenset(plan.secret_files))
    given = (frozenset(secrets.secret_env), frozenset(secrets.secret_files)) if secrets else None
    if planned != (given or (frozenset[str](), frozenset[str]())):
        raise InvalidInput(
            "the secrets of the run are not those that its arguments and variables refer to: resolve them first",
            field="secrets",
            wanted=sorted(planned[0] | planned[1]),
        )
    if secrets is not None:
        check_command(secrets.argv)
        check_env({**secrets.env, **dict.fromkeys(secrets.secret_env, "")})
        for path in secrets.secret_files:
            folder, _, name = path.rpartition("/")
            if folder != SECRETS_FOLDER or name in ("", ".", ".."):
                raise InvalidInput(f"{path!r} is no file in {SECRETS_FOLDER}", field="secrets")


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
