"""What every arm of the solve benchmark can do on one task: ask the model under its budget, and run what it gave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fleet.bench.meter import TokenMeter
from fleet.bench.service.execution import CaseResult, Execute, ProgramCase, Solution
from fleet.bench.service.source import calls_in, defined_tests, one_assertion_each
from fleet.bench.task import SOLUTION, SolveTask
from fleet.kernel.errors import ContextTooLarge, ReplyMalformed, ReplyRefused
from fleet.models.chat import ChatReply, ChatRequest, Sampling, TokenUsage
from fleet.models.port import ChatModel
from fleet.models.prompts.prompt import Persona, PromptSet, build_request, with_problems
from fleet.models.replies.code_reply import authored_tests, code_blocks, edits_of

T = TypeVar("T")
CUT_OFF = "the reply was cut off at its length limit: answer again, shorter"
MAX_AUTHORED = 10
MAX_INPUTS = 20
_SHARE_OF_TESTS, _FEWEST_TEST_TOKENS = 10, 300
"""The reply of the test author may take this part of the budget, or at least so many tokens."""
_SHARE_OF_REPLY, _FEWEST_REPLY_TOKENS = 8, 700
"""The same for every other reply, so that an arm can afford several."""
_FAILURE_CHARS = 1500
_PROPOSER, _TESTER = "prompts/roles/developer.md", "prompts/roles/qa.md"


@dataclass(frozen=True, slots=True)
class BenchVoices:
    """The product's own prompts, and the two roles that the benchmark needs."""

    prompts: PromptSet

    @property
    def proposer(self) -> Persona:
        """Who drafts, repairs, criticises and votes."""
        return self.prompts.persona(_PROPOSER)

    @property
    def tester(self) -> Persona:
        """Who writes tests."""
        return self.prompts.persona(_TESTER)


@dataclass(frozen=True, slots=True)
class AuthoredTests:
    """Tests that a model wrote: cases by test function, and the calls that serve as shared inputs."""

    code: str = ""
    cases: tuple[ProgramCase, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Solver:
    """One arm on one task with one seed. Methods that ask the model raise BudgetExceeded instead of overspending,
    ReplyMalformed for a reply without use, ModelUnavailable and ModelTimeout when no engine answers.
    """

    task: SolveTask
    seed: int
    model: ChatModel
    execute: Execute
    voices: BenchVoices
    meter: TokenMeter
    blind: bool = False
    """Visible tests are withheld: neither shown nor run."""
    timeout_s: float = 300.0
    constrain: bool = True
    """Whether the engine can keep to a JSON schema."""
    failed_calls: int = 0
    drafts: list[Solution] = field(default_factory=list[Solution])

    @property
    def visible(self) -> tuple[ProgramCase, ...]:
        """The tests that this arm may run."""
        if self.blind:
            return ()
        if self.task.is_repository:
            return (ProgramCase("command", "test", ""),)
        return tuple(ProgramCase(f"visible-{n}", "test", code) for n, code in enumerate(self.task.visible))

    async def draft(self, number: int, *, temperature: str | None = None, variant: int = 0) -> Solution:
        """Draft `number`; the same number, seed and variant is the same request in every arm.

        Number 0 without a temperature is greedy.
        """
        at = temperature or ("0" if number == 0 else "0.8")
        request = self._request("draft", self.voices.proposer.variant(variant), at=at, salt=f"draft/{number}")
        solution = await self._parsed("draft", request, self._code)
        self.drafts.append(solution)
        return solution

    async def repair(
        self, solution: Solution, failures: str, *, number: int, critique: str = "", temperature: str = "0.6"
    ) -> Solution:
        """A new version of the solution, made from what its runs showed."""
        own = f"Your code:\n```python\n{solution.text}```\nWhat failed:\n{failures[:_FAILURE_CHARS]}"
        own += f"\nA reader says:\n{critique}" if critique else ""
        persona = self.voices.proposer.variant(0)
        salt = f"repair/{number}/{solution.digest}"
        request = self._request("repair", persona, own=own, at=temperature, salt=salt)
        return await self._parsed("repair", request, self._code)

    async def author_tests(self) -> AuthoredTests:
        """Tests from the prompt alone, never from a draft; at most ten. For a repository there are none."""
        if self.task.is_repository:
            return AuthoredTests()
        own = f"Import it with: from solution import {self.task.entry_point}"
        most = max(_FEWEST_TEST_TOKENS, self.meter.budget // _SHARE_OF_TESTS)
        persona = self.voices.tester.variant(0)
        request = self._request("tests", persona, own=own, at="0.2", salt="tests", at_most=most)
        return await self._parsed("tests", request, self._tests, is_whole=False)

    async def ask_json(
        self, kind: str, *, own: str, schema: Mapping[str, Any], salt: str, parse: Callable[[str], T], max_tokens: int
    ) -> T:
        """The parsed answer to a question with a schema; `kind` is its template and its stage."""
        request = self._request(
            kind,
            self.voices.proposer.variant(0),
            own=own,
            at="0",
            salt=salt,
            schema=schema,
            max_tokens=max_tokens,
        )
        return await self._parsed("ballots" if kind == "vote" else kind, request, lambda reply: parse(reply.text))

    async def run(self, solution: Solution, cases: Sequence[ProgramCase]) -> Mapping[str, CaseResult]:
        """What the cases show of the solution."""
        return await self.execute.run(self.task, solution, cases)

    def _request(
        self,
        kind: str,
        persona: str,
        *,
        own: str = "",
        at: str,
        salt: str,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 0,
        at_most: int | None = None,
    ) -> ChatRequest:
        template = self.voices.prompts.template(kind)
        longest = max(_FEWEST_REPLY_TOKENS, self.meter.budget // _SHARE_OF_REPLY)
        room = max(template.max_tokens or longest, max_tokens)
        draw = hashlib.sha256(f"{self.seed}/{self.task.task_id}/{salt}".encode()).digest()
        sampling = Sampling(
            temperature=at,
            top_p="0.95",
            max_tokens=room if at_most is None else min(room, at_most),
            seed=int.from_bytes(draw[:4], "big") >> 1,
        )
        return build_request(
            template,
            persona,
            shared=self._shown(),
            own=own,
            sampling=sampling,
            json_schema=schema,
            constrain=self.constrain,
        )

    def _shown(self) -> str:
        task = self.task
        text = task.blind_prompt if self.blind else task.prompt
        if not task.is_repository:
            return text
        files = [(p, task.files[p].decode(errors="replace")) for p in task.targets if p in task.files]
        listed = "\n\n".join(f"# file: {path}\n{content}" for path, content in files)
        rule = "Give every file that you change whole; the first line of its block is `# file: PATH`."
        return f"{text}\n\n{listed}\n\n{rule}"

    async def _parsed(
        self, stage: str, request: ChatRequest, parse: Callable[[ChatReply], T], *, is_whole: bool = True
    ) -> T:
        """The reply's value, after at most one repair of its form (MB-6); both calls are on the bill.

        Args:
            is_whole: a reply that was cut off is of no use; else `parse` sees to it.
        """
        read = _whole if is_whole else _as_it_is
        reply = await self._call(stage, request)
        try:
            return read(reply, parse)
        except ReplyMalformed as error:
            self.meter.spoil()
            problems = [str(p) for p in error.details.get("problems", [error.message])]
            request = with_problems(request, reply.text, problems)
        try:
            return read(await self._call(stage, request), parse)
        except ReplyMalformed:
            self.meter.spoil()
            raise

    async def _call(self, stage: str, request: ChatRequest) -> ChatReply:
        fitted = self.meter.fitted(request)
        salt = f"{self.task.task_id}/{self.seed}/{len(self.meter.calls)}/{fitted.digest}"
        request_id = hashlib.sha256(salt.encode()).hexdigest()[:32]
        try:
            reply = await self.model.complete(fitted, request_id=request_id, timeout_s=self.timeout_s)
        except (ReplyRefused, ContextTooLarge) as error:
            # What it cost is not known: the whole reservation is on the bill. A timeout is no answer of the model but
            # a slow machine: it ends the benchmark, which can be continued.
            self.failed_calls += 1
            usage = TokenUsage(tokens_in=self.meter.bound(fitted), tokens_out=fitted.sampling.max_tokens)
            lost = ChatReply(text="", finish_reason="abort", usage=usage, engine="", model="")
            self.meter.settle(fitted, lost, stage=stage, is_usable=False)
            raise ReplyMalformed(f"there is no reply: {error.message}", problems=[error.message]) from error
        self.meter.settle(fitted, reply, stage=stage)
        return reply

    def _code(self, reply: ChatReply) -> Solution:
        if self.task.is_repository:
            edits = edits_of(reply.text, target_paths=self.task.targets, new_paths=self.task.targets)["edits"]
            return Solution(tuple(sorted((str(e["path"]), str(e["content"])) for e in edits)))
        return Solution(((SOLUTION, _function_of(reply.text, self.task.entry_point)),))

    def _tests(self, reply: ChatReply) -> AuthoredTests:
        is_cut = reply.finish_reason == "length"
        code = one_assertion_each(str(authored_tests(reply.text, is_cut=is_cut)["code"]))
        names = defined_tests(code)[:MAX_AUTHORED]
        if not names:
            problem = "the test code is no valid Python: write complete functions named test_... without arguments"
            raise ReplyMalformed(problem, problems=[problem])
        cases = tuple(ProgramCase(f"test-{n}", "test", f"{code}\n\n{name}()\n") for n, name in enumerate(names))
        return AuthoredTests(code, cases, calls_in(code, self.task.entry_point)[:MAX_INPUTS])


def _as_it_is(reply: ChatReply, parse: Callable[[ChatReply], T]) -> T:
    return parse(reply)


def _whole(reply: ChatReply, parse: Callable[[ChatReply], T]) -> T:
    if reply.finish_reason == "length":
        raise ReplyMalformed(CUT_OFF, problems=[CUT_OFF])
    return parse(reply)


def _function_of(text: str, entry_point: str) -> str:
    """The block that defines the function; code without a fence counts too, small models forget it."""
    defined = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", re.MULTILINE)
    blocks = [b.content for b in code_blocks(text)] or [text.strip() + "\n"]
    for block in blocks:
        if defined.search(block):
            return block
    problem = f"no code block defines {entry_point}: put the whole function between ```python and ```"
    raise ReplyMalformed(problem, problems=[problem])


def passed_of(results: Mapping[str, CaseResult], cases: Sequence[ProgramCase]) -> int:
    """How many of these cases passed."""
    return sum(c.id in results and results[c.id].outcome == "passed" for c in cases)


def failures_of(results: Mapping[str, CaseResult], cases: Sequence[ProgramCase]) -> str:
    """What failed, for the author: the test's last line and what it showed."""
    lines: list[str] = []
    for case in cases:
        found = results.get(case.id)
        if found is not None and found.outcome != "passed":
            code = _of_interest(case.code)
            lines.append(f"- {code + ': ' if code else ''}{found.outcome}: {found.message}")
    return "\n".join(dict.fromkeys(lines))


def _of_interest(code: str) -> str:
    """The test itself: of an authored one its function instead of the call that is appended."""
    lines = code.strip().split("\n")
    if (name := re.fullmatch(r"(test_\w+)\(\)", lines[-1])) is None:
        return code.strip()[:400]
    found = re.search(rf"^def {name.group(1)}\(.*?(?=^\S|\Z)", code, re.MULTILINE | re.DOTALL)
    return found.group().strip()[:400] if found else ""
