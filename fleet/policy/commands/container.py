"""Command lines of podman and docker for the tool docker: what may be started, and of whose things (RT-49, RT-61)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import StoryId
from fleet.policy.runs.spec import Limits

STORY_LABEL = "swefleet.story"
"""Label of everything that the tool makes: the story that it belongs to."""
UNTIL_LABEL = "swefleet.until"
"""Label of a container: seconds since 1970 after which it is removed."""
OPEN_FILES = 4096
_LOG_BYTES = 10 << 20
_NOBODY = "65534:65534"
_ROOM = 64
_DIGEST = re.compile(r"[a-z0-9][a-z0-9._/:-]{0,250}@sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LINE = re.compile(r"([A-Za-z]+)[ \t]+(.*)")
_FROM = re.compile(r"(\S+)(?:[ \t]+[Aa][Ss][ \t]+([A-Za-z0-9][A-Za-z0-9_.-]{0,127}))?")
_PLAIN = frozenset(
    """
    ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER RUN SHELL STOPSIGNAL USER VOLUME WORKDIR
    """.split()  # noqa: SIM905 - a list of names
)
_COPY_FLAGS = re.compile(r"--(?:chown|chmod|from)=[A-Za-z0-9][A-Za-z0-9_.:/@-]*")


class ContainerOrder(NamedTuple):
    """A container that is to be made."""

    name: str
    story: StoryId
    image: str
    argv: tuple[str, ...]
    limits: Limits
    until_s: int
    """Seconds since 1970 when its time is up."""


def story_filter(story: StoryId) -> tuple[str, str]:
    """The filter that leaves containers and images of this story alone."""
    return "--filter", f"label={STORY_LABEL}={story}"


def create_argv(order: ContainerOrder, engine: Literal["podman", "docker"], *, cpus: int) -> tuple[str, ...]:
    """The container stands there and does not run yet: no network, no rights, no host path, every limit (RC-30).

    Raises:
        PolicyDenied: the image is not named by its digest.
    """
    if not _DIGEST.fullmatch(order.image):
        raise PolicyDenied(
            f"image {order.image[:120]!r} is not named by a digest: use name@sha256:...", rule_id="RT-61"
        )
    limits = order.limits
    is_podman = engine == "podman"
    return (
        *(("--runtime", "runc") if is_podman else ()),
        *("create", "--name", order.name, "--pull", "never", "--network", "none", "--ipc", "private"),
        *("--label", f"{STORY_LABEL}={order.story}", "--label", f"{UNTIL_LABEL}={order.until_s}"),
        *("--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,nodev,size=67108864,mode=1777"),
        *("--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", _NOBODY, "--restart", "no"),
        *("--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)),
        *("--pids-limit", str(limits.pids), "--cpus", f"{min(limits.cpu_millis / 1000, cpus):g}"),
        *_ulimits(limits),
        *("--log-driver", "k8s-file" if is_podman else "json-file", "--log-opt", f"max-size={_LOG_BYTES}"),
        *(_PODMAN if is_podman else ()),
        *(("--timeout", str(limits.overall_s)) if is_podman else ()),
        order.image,
        *order.argv,
    )


_PODMAN = ("--http-proxy=false", "--read-only-tmpfs=false", "--no-hosts", "--image-volume", "ignore")


def build_argv(
    folder: str, containerfile: str, *, story: StoryId, tag: str, limits: Limits, id_file: str
) -> tuple[str, ...]:
    """The image is built of this folder by podman, without any network; every step of it has the limits.

    docker is not asked: its builder takes no limits, so that a build there could not be held (RC-32).
    """
    memory = str(limits.memory_bytes)
    return (
        *("--runtime", "runc", "build", "--network", "none", "--pull=never", "--http-proxy=false", "--cap-drop", "all"),
        *("--memory", memory, "--memory-swap", memory),
        *("--cpu-period", "100000", "--cpu-quota", str(limits.cpu_millis * 100)),
        *_ulimits(limits),
        *("--label", f"{STORY_LABEL}={story}", "--force-rm", "--iidfile", id_file),
        *("--tag", image_name(story, tag), "--file", containerfile, folder),
    )


def image_name(story: StoryId, tag: str) -> str:
    """What an image that the story built is called on this node. InvalidInput for a tag that is none."""
    if not _TAG.fullmatch(tag):
        raise InvalidInput(f"{tag[:80]!r} is no tag: use letters, digits, '-', '_' and '.'", field="tag")
    return f"localhost/swefleet/{story.lower()}:{tag}"


def push_name(image: str) -> str:
    """Where an image goes: its own name, with its digest as the tag, so that pushing it again changes nothing.

    Raises PolicyDenied when the image is not named by its digest.
    """
    if not _DIGEST.fullmatch(image):
        raise PolicyDenied(f"image {image[:120]!r} is not named by a digest: use name@sha256:...", rule_id="RT-61")
    name, _, digest = image.partition("@sha256:")
    last = name.rpartition("/")[2]
    return f"{name.removesuffix(':' + last.partition(':')[2]) if ':' in last else name}:sha256-{digest}"


def base_images(containerfile: str, *, listed: Collection[str]) -> tuple[str, ...]:
    """The images that a build begins with, each listed by its digest.

    Whatever this file could make a builder fetch or mount by itself is refused, and so is every form that two
    readers could take in two ways: ADD, flags of RUN, here-documents, parser directives, variables in FROM.

    Raises:
        PolicyDenied: an image that is not listed.
        InvalidInput: a line that is not in this part of the language.
    """
    images: list[str] = []
    stages = {"scratch"}
    for instruction, rest in _instructions(containerfile):
        if instruction == "FROM":
            images += _base(rest, stages, listed)
        elif instruction == "RUN" and rest.startswith("--"):
            raise _unusable(rest, "RUN has no flags here")
        elif instruction == "COPY":
            images += _copied(rest, stages, listed)
    if not images and "FROM" not in {name for name, _ in _instructions(containerfile)}:
        raise _unusable("", "there is no FROM")
    return tuple(dict.fromkeys(images))


def _base(rest: str, stages: set[str], listed: Collection[str]) -> Iterator[str]:
    parsed = _FROM.fullmatch(rest)
    if parsed is None:
        raise _unusable(rest, "FROM takes one image and, if you want, AS a name")
    image, stage = parsed.group(1), parsed.group(2)
    if image.lower() not in stages:
        yield _listed_image(image, listed)
    if stage:
        stages.add(stage.lower())


def _copied(rest: str, stages: set[str], listed: Collection[str]) -> Iterator[str]:
    for word in rest.split():
        if not word.startswith("--"):
            return
        if not _COPY_FLAGS.fullmatch(word):
            raise _unusable(rest, "COPY takes --from, --chown and --chmod")
        source = word.removeprefix("--from=")
        if source != word and source.lower() not in stages and not source.isdecimal():
            yield _listed_image(source, listed)


def _listed_image(image: str, listed: Collection[str]) -> str:
    if image not in listed or not _DIGEST.fullmatch(image):
        raise PolicyDenied(
            f"image {image[:200]!r} is not listed under targets.images by its digest", rule_id="RT-61", image=image
        )
    return image


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    joined = ""
    for raw in text.split("\n"):
        line = raw.removesuffix("\r").strip(" \t")
        if any(ord(c) < 32 and c != "\t" for c in line) or line.endswith("\\\\") or "<<" in line:
            raise _unusable(line, "control characters, a doubled backslash at the end and here-documents are not taken")
        if not line or line.startswith("#"):
            if joined or re.match(r"#[ \t]*[A-Za-z]+[ \t]*=", line):
                raise _unusable(line, "parser directives, and gaps or comments inside an instruction, are not taken")
            continue
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield _instruction(joined + line)
        joined = ""
    if joined:
        raise _unusable(joined, "the last instruction goes on after the end")


def _instruction(line: str) -> tuple[str, str]:
    parsed = _LINE.fullmatch(line)
    if parsed is None or (name := parsed.group(1).upper()) not in _PLAIN:
        raise _unusable(line, f"use {', '.join(sorted(_PLAIN))}; a build fetches nothing")
    return name, parsed.group(2).strip()


def _unusable(line: str, why: str) -> InvalidInput:
    return InvalidInput(f"the Containerfile cannot be taken at {line[:80]!r}: {why}", field="path", line=line[:200])


def _ulimits(limits: Limits) -> tuple[str, ...]:
    values = {"nofile": OPEN_FILES, "nproc": limits.pids + _ROOM, "core": 0, "fsize": limits.file_bytes}
    return tuple(a for name, value in values.items() for a in ("--ulimit", f"{name}={value}:{value}"))
