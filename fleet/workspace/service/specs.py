"""What the workspace pipeline asks of the sandbox: pure builders of RunSpec (RC-70..RC-77).

Outputs of the git and edit scripts go to a folder that no repository has, and that never joins a tree: `out` and
`coverage` may be the repository's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.forge.port import StagedRepository
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import BlobMount, Limits, RepoMount, RunSpec, ServiceSpec

ALL_STAGES = ("build", "unit", "lint", "static", "e2e")
"""Stages of the pipeline, in their order."""
FOLDER = ".fleet-out"
"""Where checkout and edits leave their results, below /workspace."""
JUNIT, E2E_JUNIT, COVERAGE = "test-reports/junit.xml", "test-reports/e2e.xml", "coverage/coverage.xml"
PREVIEW_JUNIT, PREVIEW_LOG = "test-reports/preview.xml", "out/preview.log"
SUMMARY, BUILD, LINT, STATIC = "out/summary.json", "out/build.json", "out/lint.json", "out/static.json"
EDITS, DIFF = f"{FOLDER}/edits.json", f"{FOLDER}/diff.patch"
CHECKOUT, SUBMODULES = f"{FOLDER}/checkout.json", f"{FOLDER}/submodules.json"
TESTS, JUDGED = "out/tests.json", "out/judged.json"
COMMIT, PACK, INDEX = "out/commit.txt", "out/new.pack", "out/new.idx"

_INSIDE = "/fleet/inside"
_GIT_LIMITS = Limits(overall_s=300, idle_s=300, memory_bytes=2 << 30, disk_bytes=4 << 30, file_bytes=2 << 30)
_EDIT_LIMITS = Limits(overall_s=120, idle_s=120)
_TEST_LIMITS = Limits(overall_s=900, idle_s=400)
_PIPELINE_LIMITS = Limits(overall_s=2400, idle_s=600, memory_bytes=2 << 30)
_BROWSER_PIDS = 512
"""A browser has a process for each site and many threads."""


class PreviewChecks(NamedTuple):
    """The checks of a declared preview: the blob of their request, and how many pages it lists."""

    request: Digest
    pages: int

    @property
    def pictures(self) -> tuple[str, ...]:
        """Where the pictures of the pages are left."""
        return tuple(f"out/preview/{number:02}.png" for number in range(1, self.pages + 1))


def checkout_spec(staged: StagedRepository, *, toolchain: str = "python", limits: Limits = _GIT_LIMITS) -> RunSpec:
    """The files of the pinned commit become the recorded tree (RC-70)."""
    return RunSpec(
        argv=("python", f"{_INSIDE}/git_checkout.py", staged.commit, "--out", f"/workspace/{FOLDER}"),
        mounts=(RepoMount(repo=staged.name),),
        limits=limits,
        artifacts=(CHECKOUT, SUBMODULES),
        keep_tree=True,
        discard=(FOLDER,),
        toolchain=toolchain,
    )


def apply_spec(tree: Digest, edits: Digest, *, toolchain: str = "python", limits: Limits = _EDIT_LIMITS) -> RunSpec:
    """The edits of the blob are applied to the tree, whole or not at all (RC-71)."""
    return RunSpec(
        argv=("python", f"{_INSIDE}/apply_edits.py", "--out", f"/workspace/{FOLDER}"),
        tree=tree,
        mounts=(BlobMount(blob=edits, target="/inputs/edits.json"),),
        limits=limits,
        artifacts=(EDITS, DIFF),
        keep_tree=True,
        discard=(FOLDER,),
        toolchain=toolchain,
    )


def pipeline_spec(
    tree: Digest,
    *,
    stages: Sequence[str] = ALL_STAGES,
    language: str = "python",
    commands: Mapping[str, str] | None = None,
    services: Sequence[ServiceSpec] = (),
    preview: PreviewChecks | None = None,
    judge: Digest | None = None,
    toolchain: str = "python",
    limits: Limits = _PIPELINE_LIMITS,
) -> RunSpec:
    """The stages run on the tree and leave their result files (RC-72..RC-75).

    Args:
        commands: overrides of RC-44, e.g. `{"TEST_CMD": "make test"}`.
        services: what runs beside the stages.
        preview: what to look at after the end-to-end tests; None when nothing is declared.
        judge: blob of what the unit tests are held against; None when there is nothing.
    """
    mounts: tuple[BlobMount, ...] = ()
    more: tuple[str, ...] = ()
    if preview is not None:
        stages = (*stages, "preview")
        mounts = (BlobMount(blob=preview.request, target="/inputs/preview.json"),)
        more = (PREVIEW_JUNIT, PREVIEW_LOG, *preview.pictures)
        limits = limits.model_copy(update={"pids": max(limits.pids, _BROWSER_PIDS)})
    env = {"TASK": "pipeline", "TASK_LANG": language, "STAGES": ",".join(stages), **(commands or {})}
    if judge is not None:
        mounts = (*mounts, BlobMount(blob=judge, target="/inputs/judge.json"))
        more = (*more, JUDGED)
        env["JUDGE"] = "/inputs/judge.json"
    artifacts = (SUMMARY, BUILD, JUNIT, COVERAGE, LINT, STATIC, E2E_JUNIT, *more)
    return RunSpec(
        argv=("python", f"{_INSIDE}/agent_task.py"),
        tree=tree,
        mounts=mounts,
        env=env,
        limits=limits,
        artifacts=artifacts,
        services=tuple(services),
        toolchain=toolchain,
    )


def given_tests_spec(
    tree: Digest, tests: Mapping[str, Digest], *, toolchain: str = "python", limits: Limits = _TEST_LIMITS
) -> RunSpec:
    """The test files of the blobs run against the tree (CN-32).

    Args:
        tests: file name (`test_*.py`) -> its text.
    """
    mounts = tuple(BlobMount(blob=blob, target=f"/inputs/{name}") for name, blob in sorted(tests.items()))
    return RunSpec(
        argv=("python", f"{_INSIDE}/run_tests.py"),
        tree=tree,
        mounts=mounts,
        limits=limits,
        artifacts=(TESTS,),
        toolchain=toolchain,
    )


def independent_tests_spec(tree: Digest, request: Digest, *, toolchain: str, limits: Limits = _TEST_LIMITS) -> RunSpec:
    """The test files of the request, of Node, Go or Rust, run on the tree (CN-32)."""
    return RunSpec(
        argv=("python", f"{_INSIDE}/independent_tests.py"),
        tree=tree,
        mounts=(BlobMount(blob=request, target="/inputs/tests.json"),),
        limits=limits,
        artifacts=(TESTS,),
        toolchain=toolchain,
    )


def commit_spec(
    tree: Digest,
    staged: StagedRepository,
    request: Digest,
    *,
    previous: Sequence[Digest] = (),
    toolchain: str = "python",
    limits: Limits = _GIT_LIMITS,
) -> RunSpec:
    """A commit of the tree and the pack of all that the base commit lacks (RC-77, PL-43).

    Args:
        request: blob of the commit's parent, base, message, author and date.
        previous: packs of commits made since the base.
    """
    packs = tuple(BlobMount(blob=blob, target=f"/inputs/pack-{n}.pack") for n, blob in enumerate(previous, 1))
    return RunSpec(
        argv=("python", f"{_INSIDE}/git_commit.py"),
        tree=tree,
        mounts=(RepoMount(repo=staged.name), BlobMount(blob=request, target="/inputs/commit.json"), *packs),
        limits=limits,
        artifacts=(COMMIT, PACK, INDEX),
        toolchain=toolchain,
    )
