"""References `secret://<name>` in the arguments and the environment of a run (RT-65, RC-3).

A reference is a whole value, never a part of one: text that only mentions a reference stays text. A run is recorded
with its references; values are put in their place where the process starts, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, JsonValue

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen

SCHEME = "secret://"
SECRETS_FOLDER = "/run/secrets"
"""Where the sandbox finds secrets that are handed over as files."""

# Hyphens alone, so that every name has one variable (`A_B` for `a-b`) and two names never share one.
_NAME = r"[a-z][a-z0-9]{0,62}(?:-[a-z0-9]{1,62}){0,15}"
SecretName = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=63)]
"""Lower-case words with hyphens between them, at most 63 characters: `deploy-token`."""


@dataclass(frozen=True, slots=True)
class FoundReference:
    """One reference: where it stands (RFC 6901 pointer) and the secret that it names."""

    pointer: str
    name: SecretName


class SecretPlan(Frozen):
    """How the secrets of one run reach it; holds names only, so that it may be recorded."""

    argv: tuple[str, ...]
    """Program and arguments; a reference became the path of its file."""
    env: dict[str, str]
    """Variables that hold no secret."""
    secret_env: dict[str, SecretName]
    """Variable -> secret that becomes its value."""
    secret_files: dict[str, SecretName]
    """Absolute path inside the sandbox -> secret that becomes its content."""

    @property
    def names(self) -> tuple[SecretName, ...]:
        """Every secret that the run needs, once, sorted."""
        return tuple(sorted({*self.secret_env.values(), *self.secret_files.values()}))


def parse_reference(text: str) -> SecretName | None:
    """The secret that this value names; None when the value is no reference.

    Text with white space is prose, whatever it starts with. Everything else that starts with the scheme was meant as a
    reference, so a wrong name is an error and is never handed on as text.

    Raises:
        InvalidInput: the name is not valid; the message does not repeat it, because it may be a secret itself.
    """
    if text[: len(SCHEME)].lower() != SCHEME or any(c.isspace() for c in text):
        return None
    name = text[len(SCHEME) :]
    if text.startswith(SCHEME) and len(name) <= 63 and re.fullmatch(_NAME, name):
        return name
    raise InvalidInput(
        "a secret reference is malformed; write secret://<name> with lower-case letters, digits and single hyphens"
    )


def references_in(document: JsonValue) -> tuple[FoundReference, ...]:
    """Every reference among the string values of a JSON document, in document order; keys are never references.

    Raises:
        InvalidInput: at least one is malformed; `problems` lists the pointer of each.
    """
    references: list[FoundReference] = []
    problems: list[str] = []
    for pointer, text in _strings(document):
        try:
            name = parse_reference(text)
        except InvalidInput:
            problems.append(pointer)
            continue
        if name is not None:
            references.append(FoundReference(pointer, name))
    _refuse(problems)
    return tuple(references)


def plan_delivery(argv: Sequence[str], env: Mapping[str, str]) -> SecretPlan:
    """Plan what the sandbox has to put where. The run finds its secrets, and nobody sees them in its arguments.

    In the environment a reference becomes the variable's value. As an argument it becomes the path of a file that holds
    the value, because other processes can read the arguments of a process.

    Raises:
        InvalidInput: a reference is malformed, or stands where the program should.
    """
    references = references_in({"argv": list(argv), "env": dict(env)})
    names = {reference.pointer: reference.name for reference in references}
    if "/argv/0" in names:
        raise InvalidInput("the program of a run is a secret reference; name a program", problems=["/argv/0"])
    files = {n: f"{SECRETS_FOLDER}/{n}" for p, n in names.items() if p.startswith("/argv/")}
    variables = {key: names[pointer] for key in env if (pointer := f"/env/{_escaped(key)}") in names}
    return SecretPlan(
        argv=tuple(
            files[names[f"/argv/{i}"]] if f"/argv/{i}" in names else argument for i, argument in enumerate(argv)
        ),
        env={key: value for key, value in env.items() if key not in variables},
        secret_env=variables,
        secret_files={path: name for name, path in files.items()},
    )


def _refuse(pointers: Sequence[str]) -> None:
    if pointers:
        raise InvalidInput(
            f"malformed secret references at {', '.join(pointers)}; write secret://<name> with lower-case letters, "
            "digits and single hyphens",
            problems=list(pointers),
        )


def _strings(document: JsonValue) -> Iterator[tuple[str, str]]:
    """Pointer and text of every string value. Without recursion: the depth is the sender's choice."""
    waiting: list[tuple[str, JsonValue]] = [("", document)]
    while waiting:
        pointer, value = waiting.pop()
        match value:
            case str():
                yield pointer, value
            case list():
                waiting.extend((f"{pointer}/{i}", child) for i, child in reversed(list(enumerate(value))))
            case dict():
                waiting.extend((f"{pointer}/{_escaped(k)}", child) for k, child in reversed(list(value.items())))
            case _:
                pass


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
