"""Tool docker: what a container may have, and which Containerfiles a build can be trusted with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import FleetError, InvalidInput, PolicyDenied
from fleet.kernel.ids import StoryId
from fleet.policy.commands.container import (
    ContainerOrder,
    base_images,
    build_argv,
    create_argv,
    image_name,
    push_name,
    story_filter,
)
from fleet.policy.runs.spec import Limits

STORY = StoryId("st-1")
LISTED = "registry.test/team/base@sha256:" + "a" * 64
OTHER = "registry.test/team/other@sha256:" + "b" * 64
LIMITS = Limits(overall_s=60, memory_bytes=64 << 20, pids=20, cpu_millis=500)
FORBIDDEN = ("--privileged", "--device", "--volume", "-v", "--mount", "host", "--cap-add", "--pid", "--publish")


def order(image: str = LISTED, *argv: str) -> ContainerOrder:
    return ContainerOrder("swefleet-1", STORY, image, argv, LIMITS, 99)


@pytest.mark.rule("RT-61", "RC-30")
@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_container_has_every_limit_and_nothing_of_the_machine(engine: str) -> None:
    argv = create_argv(order(LISTED, "serve", "--privileged"), engine, cpus=4)  # pyright: ignore[reportArgumentType]
    options = argv[: argv.index(LISTED)]

    assert not set(FORBIDDEN) & set(options)
    assert not any("docker.sock" in a or "podman.sock" in a for a in options)
    assert options[options.index("--network") + 1] == "none"
    assert options[options.index("--cap-drop") + 1] == "all"
    for option in ("--memory", "--memory-swap", "--pids-limit", "--cpus", "--read-only", "--user"):
        assert option in options
    assert {"nofile=4096:4096", "core=0:0", "nproc=84:84"} <= set(options)
    assert argv[argv.index(LISTED) :] == (LISTED, "serve", "--privileged")
    assert ("--timeout" in options) == (engine == "podman")


@pytest.mark.rule("RT-61")
@pytest.mark.parametrize("image", ["busybox", "busybox:latest", "x@sha256:12", "--privileged", ""])
def test_image_without_a_digest_is_denied(image: str) -> None:
    with pytest.raises(PolicyDenied):
        create_argv(order(image), "podman", cpus=1)
    with pytest.raises(PolicyDenied):
        push_name(image)


def test_image_is_pushed_under_its_own_name_and_digest() -> None:
    assert push_name(LISTED) == f"registry.test/team/base:sha256-{'a' * 64}"
    assert push_name("r.test:5000/base:1@sha256:" + "a" * 64) == f"r.test:5000/base:sha256-{'a' * 64}"
    assert story_filter(STORY) == ("--filter", "label=swefleet.story=st-1")


@pytest.mark.rule("RT-61")
def test_build_has_no_network_and_its_limits() -> None:
    argv = build_argv("/t/tree", "/t/Containerfile", story=STORY, tag="web", limits=LIMITS, id_file="/t/id")

    assert argv[argv.index("--network") + 1] == "none"
    assert "--pull=never" in argv
    assert argv[argv.index("--memory") + 1] == str(64 << 20)
    assert argv[-1] == "/t/tree"
    assert image_name(STORY, "web") in argv
    with pytest.raises(InvalidInput):
        image_name(STORY, "--x")


@pytest.mark.rule("RT-61")
def test_containerfile_tells_which_listed_images_it_begins_with() -> None:
    text = f"""# comment
FROM {LISTED} AS build
RUN make \\
    all

from scratch
COPY --from=build --chown=1:1 a /a
COPY --from=0 b /b
COPY --from={OTHER} c d /c
CMD ["/a"]
"""
    assert base_images(text, listed=(LISTED, OTHER)) == (LISTED, OTHER)
    assert base_images("FROM scratch\r\nCOPY a /a\r\n", listed=()) == ()


@pytest.mark.rule("RT-61")
@pytest.mark.parametrize("line", [f"FROM {OTHER}", "FROM busybox", f"COPY --from={OTHER} a /a", "COPY --from=x a /a"])
def test_containerfile_with_an_image_that_is_not_listed_is_denied(line: str) -> None:
    with pytest.raises(PolicyDenied):
        base_images(f"FROM {LISTED}\n{line}\n", listed=(LISTED,))


@pytest.mark.rule("RT-61")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "RUN true",
        "# syntax=evil.test/frontend\nFROM {0}",
        "#  escape = `\nFROM {0}",
        "FROM --platform=x {0}",
        "FROM {0} AS",
        "FROM {0}\nADD https://evil.test/x /x",
        "FROM {0}\nONBUILD RUN x",
        "FROM {0}\nRUN --mount=type=bind,from=evil true",
        "FROM {0}\nRUN <<EOF\nx\nEOF",
        "FROM {0}\nCOPY --link a /a",
        "FROM {0}\nRUN a \\\n# gap\nFROM evil",
        "FROM {0}\nRUN a \\\n\nFROM evil",
        "FROM {0}\nRUN a \\\\\nFROM evil",
        "FROM {0}\nRUN a \\",
        "FROM {0}\nRUN a\x0bFROM evil",
        "FROM",
    ],
)
def test_containerfile_that_could_be_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        base_images(text.replace("{0}", LISTED), listed=(LISTED,))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["FROM ", LISTED, "evil", "\n", "\\", " ", "RUN ", "AS ", "#", "COPY ", "--from="])))
def test_no_text_makes_an_image_pass_that_is_not_listed(words: list[str]) -> None:
    try:
        found = base_images("".join(words), listed=(LISTED,))
    except FleetError:
        return
    assert set(found) <= {LISTED}
