"""Read the result files of a run outside the sandbox: hardened, bounded, never console text (RC-79, S25).

Every file was written beside code that nobody trusts. So sizes are capped, XML has no entities and no DTD, JSON is
validated against a closed form, and what does not fit is no evidence: the parser returns None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar, cast
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from fleet.kernel.types import Frozen, StageStatus

MAX_BYTES = 32 << 20
"""Larger result files are no evidence."""
MAX_TEXT = 4000
MAX_ELEMENTS, MAX_DEPTH = 500_000, 64
"""An XML file with more elements, or deeper ones, is no evidence: the parsed form is many times its size."""

_T = TypeVar("_T", bound=BaseModel)
Text = Annotated[str, Field(max_length=200_000)]
Severity = Literal["critical", "major", "minor"]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Milliseconds = Count


class _Read(BaseModel):
    # Result files may say more than we read: they come from tools of other versions.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StageRecord(_Read):
    """One stage as the shim recorded it (RC-78)."""

    name: Annotated[str, Field(max_length=40)]
    status: StageStatus
    exit_code: Annotated[int, Field(ge=-(1 << 31), lt=1 << 32)] | None = None
    started_at_ms: Milliseconds | None = None
    finished_at_ms: Milliseconds | None = None
    tool: Annotated[str, Field(max_length=80)] = ""
    """What measured; "" in summaries that did not name it yet."""


class CheckSummary(_Read):
    """`out/summary.json`."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    stages: Annotated[tuple[StageRecord, ...], Field(max_length=20)]
    tools: Annotated[
        dict[Annotated[str, Field(max_length=80)], Annotated[str, Field(max_length=80)]], Field(max_length=50)
    ] = {}
    """Name of a tool -> its version."""
    coverage_tool: Annotated[str, Field(max_length=80)] = "coverage"
    exit_code: Annotated[int, Field(ge=-(1 << 31), lt=1 << 32)] | None = None
    """What the shim ended with; None while stages were still to come."""

    def stage(self, name: str) -> StageRecord | None:
        """The record of one stage."""
        return next((s for s in self.stages if s.name == name), None)


class CodeFinding(Frozen):
    """One finding of an analyser, without its line: that moves when code above it changes."""

    path: str
    code: str
    message: str
    severity: Severity | None = None
    """What the analyser's own reader said; None leaves it to the code."""


class RefusedEdit(_Read):
    """Why an edit was refused."""

    path: Text
    message: Text


class EditReport(_Read):
    """`edits.json`: what became of a model's edits."""

    applied: bool
    problems: tuple[RefusedEdit, ...] = ()
    files: tuple[Text, ...] = ()
    normal_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    diff_lines: Count
    added: Count = 0
    removed: Count = 0


class TestOutcome(_Read):
    """One given test: its id in the file, how it ended, and the first line of what it said."""

    __test__ = False

    id: Annotated[str, Field(max_length=500)]
    outcome: Literal["passed", "failed", "error", "skipped", "not_collected"]
    exception: Annotated[str, Field(max_length=200)] | None = None
    message: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    excerpt: Annotated[str, Field(max_length=MAX_TEXT)] = ""


class TestFile(_Read):
    """One given test file."""

    __test__ = False

    name: Annotated[str, Field(max_length=200)]
    collected: bool
    reason: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    tests: Annotated[tuple[TestOutcome, ...], Field(max_length=5000)] = ()


class _Tests(_Read):
    files: Annotated[tuple[TestFile, ...], Field(max_length=100)]


class PipedTest(_Read):
    """How a test ended in a process without the project's code; without an id: how the process ended."""

    id: Annotated[str, Field(max_length=1000)]
    outcome: Literal["passed", "failed", "skipped", "late", "lost"]
    s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class JudgedRun(_Read):
    """`out/judged.json`: what the judge of a run of tests saw that the code under test cannot write."""

    canaries: dict[str, Literal["failed", "passed", "missing"]] = {}
    """Test file -> what became of the test in it that must fail."""
    piped: Annotated[tuple[PipedTest, ...], Field(max_length=200_000)] = ()
    late: tuple[str, ...] = ()
    """Files that there was no time for."""
    changed: tuple[str, ...] = ()
    """Files of the tests that the run itself changed."""


class _RuffFinding(_Read):
    filename: Text
    code: Annotated[str, Field(max_length=200)] | None = None
    message: Text
    severity: Severity | None = None

    @field_validator("severity", mode="before")
    @classmethod
    def _one_of_ours(cls, value: object) -> object:
        # ruff's preview and other tools use this name for words of their own.
        return value if value in ("critical", "major", "minor") else None


class _EslintMessage(_Read):
    rule: str | None = Field(default=None, alias="ruleId", max_length=200)
    message: Text
    severity: Literal[1, 2]


class _EslintFile(_Read):
    path: Text = Field(alias="filePath")
    messages: Annotated[tuple[_EslintMessage, ...], Field(max_length=200_000)]


@dataclass(frozen=True, slots=True)
class SuiteCase:
    """One test of the project's own suite."""

    id: str
    outcome: Literal["passed", "failed", "errored", "skipped"]
    message: str = ""
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class JUnitSuite:
    """A JUnit file: its tests in order."""

    cases: tuple[SuiteCase, ...]

    @property
    def failing(self) -> tuple[str, ...]:
        """Ids of the tests that failed or errored, sorted."""
        return tuple(sorted({c.id for c in self.cases if c.outcome in ("failed", "errored")}))

    @property
    def passing(self) -> tuple[str, ...]:
        """Ids of the tests that passed, sorted."""
        return tuple(sorted({c.id for c in self.cases if c.outcome == "passed"}))


@dataclass(frozen=True, slots=True)
class LineHits:
    """Path -> executable line -> whether it ran."""

    files: Mapping[str, Mapping[int, bool]] = field(default_factory=dict[str, Mapping[int, bool]])


def parse_summary(data: bytes | None) -> CheckSummary | None:
    """The shim's summary."""
    return _json(CheckSummary, data)


def parse_edits(data: bytes | None) -> EditReport | None:
    """What became of the edits."""
    return _json(EditReport, data)


def parse_tests(data: bytes | None) -> tuple[TestFile, ...] | None:
    """The outcomes of given tests, by file."""
    results = _json(_Tests, data)
    return results.files if results else None


def parse_judged(data: bytes | None) -> JudgedRun | None:
    """What the judge of the tests saw."""
    return _json(JudgedRun, data)


_FINDINGS = TypeAdapter(Annotated[list[_RuffFinding], Field(max_length=200_000)])
_ESLINT = TypeAdapter(Annotated[list[_EslintFile], Field(max_length=200_000)])


def parse_findings(data: bytes | None, *, root: str = "/workspace/") -> tuple[CodeFinding, ...] | None:
    """The findings of an analyser, in ruff's JSON or in ESLint's; paths relative to the workspace."""
    if data is None or len(data) > MAX_BYTES:
        return None
    try:
        rows = _FINDINGS.validate_json(data)
    except ValidationError:
        return _eslint(data, root)
    # A file that does not parse has findings without a code.
    return tuple(
        CodeFinding(path=_inside(f.filename, root), code=f.code or "E999", message=f.message[:500], severity=f.severity)
        for f in rows
    )


def _eslint(data: bytes, root: str) -> tuple[CodeFinding, ...] | None:
    """A warning of ESLint is minor; a file that does not parse has a finding without a rule."""
    try:
        files = _ESLINT.validate_json(data)
    except ValidationError:
        return None
    return tuple(
        CodeFinding(
            path=_inside(file.path, root),
            code=one.rule or "syntax",
            message=one.message[:500],
            severity="minor" if one.severity == 1 else None,
        )
        for file in files
        for one in file.messages
    )


def _inside(path: str, root: str) -> str:
    return path.removeprefix(root).removeprefix("./")


def _json(model: type[_T], data: bytes | None) -> _T | None:
    if data is None or len(data) > MAX_BYTES:
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError:
        return None


def parse_junit(data: bytes | None) -> JUnitSuite | None:
    """The tests of a JUnit XML file."""
    root = _xml(data)
    if root is None or root.tag not in ("testsuites", "testsuite"):
        return None
    return JUnitSuite(tuple(_case(element) for element in root.iter("testcase")))


def _case(element: Element) -> SuiteCase:
    kinds = {"failure": "failed", "error": "errored", "skipped": "skipped"}
    said = [(kinds[child.tag], child) for child in element if child.tag in kinds]
    # A test that failed and whose teardown errored is one test: the worst counts.
    order = ("errored", "failed", "skipped")
    said.sort(key=lambda pair: order.index(pair[0]))
    outcome = said[0][0] if said else "passed"
    message = said[0][1].get("message") or "" if said else ""
    file, line = element.get("file") or "", element.get("line") or ""
    return SuiteCase(
        id=_case_id(element, file),
        outcome=cast("Literal['passed', 'failed', 'errored', 'skipped']", outcome),
        message=message.split("\n", 1)[0][:300],
        file=file[:500],
        line=int(line) + 1 if line.isdecimal() and len(line) < 9 else None,
    )


def _case_id(element: Element, file: str) -> str:
    name, owner = element.get("name") or "unnamed", element.get("classname") or ""
    module = file.removesuffix(".py").replace("/", ".")
    inner = owner.removeprefix(module).strip(".") if module else ""
    parts = (
        [file, *([inner.replace(".", "::")] if inner else []), name] if file else [*([owner] if owner else []), name]
    )
    return "::".join(parts)[:500]


def parse_coverage(data: bytes | None) -> LineHits | None:
    """The lines of a Cobertura XML file, as coverage.py writes it."""
    root = _xml(data)
    if root is None or root.tag != "coverage":
        return None
    files: dict[str, dict[int, bool]] = {}
    for entry in root.iter("class"):
        files.setdefault(entry.get("filename") or "", {}).update(_lines(entry))
    return LineHits(files)


def _lines(entry: Element) -> Iterator[tuple[int, bool]]:
    for line in entry.iter("line"):
        number, hits = line.get("number") or "", line.get("hits") or ""
        if number.isdecimal() and hits.isdecimal() and len(number) < 9:
            yield int(number), hits.strip("0") != ""


class _Bounded(TreeBuilder):
    """Builds the tree until it has too many elements or they lie too deep; then ValueError."""

    def __init__(self) -> None:
        super().__init__()
        self._elements = self._depth = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._elements += 1
        self._depth += 1
        if self._elements > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            raise ValueError("too many elements, or too deep")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _xml(data: bytes | None) -> Element | None:
    if data is None or len(data) > MAX_BYTES:
        return None
    # Every element has a start tag, and most an end tag: this is cheap, and spares the parser what it would refuse.
    if data.count(b"<") > 2 * MAX_ELEMENTS:
        return None
    parser = DefusedXMLParser(target=_Bounded(), forbid_dtd=True)
    try:
        parser.feed(data)
        return parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):
        return None
