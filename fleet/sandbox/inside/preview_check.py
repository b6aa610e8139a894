"""Runs inside the sandbox: serves the declared preview, looks at its pages, leaves their results as tests (RC-75).

Reads /inputs/preview.json, the validated declaration; `{"problem": "..."}` stands for one that is not valid. Leaves
`test-reports/preview.xml`, `out/preview.log` and `out/preview/<n>.png` below the working directory. Exit code 0 when
all pages are as declared, 1 when not, 69 without a browser: then nothing was started and all pages are `skipped`.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from browser_pipe import PROGRAMS, Broken, Browser, Missing, program
from preview_pages import look, picture, problems, told
from preview_server import Preview, Unserved
from result_files import Case, is_red, write_junit
from stages import PREVIEW_JUNIT, UNAVAILABLE

Json = dict[str, Any]
DECLARATION = Path("/inputs/preview.json")
LOG, PICTURES = Path("out/preview.log"), Path("out/preview")
OWNER = "preview"
_BROWSER_S = 60.0
"""How long a browser may take to start: that says nothing about the page."""


def check(declared: Json, browser: str) -> Iterator[Case]:
    """The result of each page, as it comes; the preview has ended with the last."""
    preview = Preview(declared["command"], declared["port"], LOG)
    try:
        preview.start()
        preview.wait(declared["ready"], declared["ready_s"])
    except Unserved as error:
        preview.close()
        yield from (_case(page, "failed", str(error)) for page in declared["pages"])
        return
    try:
        for number, page in enumerate(declared["pages"], 1):
            yield _looked(preview, page, browser, PICTURES / f"{number:02}.png", declared["page_s"])
    finally:
        preview.close()


def _looked(preview: Preview, page: Json, program: str, target: Path, seconds: float) -> Case:
    """One page in a browser of its own: nothing of another page is there, and what hangs ends with it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile, time.monotonic() + _BROWSER_S)
        try:
            browser.open_page()
        except (Broken, OSError) as error:
            browser.close()
            return _case(page, "errored", f"the browser did not start: {error}")
        try:
            browser.deadline = time.monotonic() + seconds
            complaints = problems(page, preview.base, look(browser, preview.base, page))
            picture(browser, target)
        except (Broken, OSError) as error:
            complaints = [f"expected a page within {seconds:g} s, found: {error}"]
        finally:
            browser.close()
    if complaints:
        try:
            preview.check()
        except Unserved as error:
            complaints = [str(error)]
    return _case(page, "failed" if complaints else "passed", told(complaints))


def _case(page: Json, outcome: str, message: str = "") -> Case:
    return Case(page["name"], outcome, OWNER, message)


def _results(declared: Json, browser: str) -> list[Case]:
    cases: list[Case] = []
    for case in check(declared, browser):
        cases.append(case)
        print(f"preview {case.name}: {case.outcome} {case.message}".rstrip(), flush=True)
    return cases


def _stop(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def main(declaration: Path = DECLARATION, programs: Sequence[str] = PROGRAMS) -> int:
    """As the module says."""
    declared: Json = json.loads(declaration.read_text(encoding="utf-8"))
    shutil.rmtree(PICTURES, ignore_errors=True)
    junit = Path(PREVIEW_JUNIT)
    if "problem" in declared:
        print(declared["problem"], file=sys.stderr)
        write_junit(junit, [Case("declaration", "errored", OWNER, declared["problem"])])
        return 1
    try:
        browser = program(programs)
    except Missing as error:
        print(f"the preview was not looked at: {error}", file=sys.stderr)
        write_junit(junit, [_case(page, "skipped", str(error)) for page in declared["pages"]])
        return UNAVAILABLE
    cases = _results(declared, browser)
    write_junit(junit, cases)
    return 1 if any(is_red(case) for case in cases) else 0


if __name__ == "__main__":
    # So that the preview is ended, too, when the run is.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
