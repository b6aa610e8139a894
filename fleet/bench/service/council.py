"""The council as an arm: the procedure and the decision are those of `fleet.council`; this only answers its duties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from fleet.bench.service.execution import CaseResult, ProgramCase, Solution
from fleet.bench.service.solved import Solved
from fleet.bench.service.solver import MAX_INPUTS, AuthoredTests, Solver, failures_of
from fleet.bench.service.source import calls_in, expectations_in
from fleet.council.ballot import Ballot, ballot_schema, read_ballot
from fleet.council.candidate import cluster_id_of
from fleet.council.conclusion import Conclusion, conclude
from fleet.council.config import CouncilConfig
from fleet.council.delphi import OwedEstimate
from fleet.council.evidence import CandidateEvidence, GateCheck, order_key
from fleet.council.facts import (
    CastBallot,
    CouncilTerms,
    DeliveredCritique,
    DeliveredDraft,
    DeliveredRepair,
    DeliveredTests,
    Fact,
    Interrupted,
    KeptTests,
    MeasuredCandidate,
    MissingCritique,
    MissingDraft,
    MissingRepair,
    MissingTests,
    RefusedBallot,
)
from fleet.council.roster import Member, build_roster, derive_seed, quorum_of
from fleet.council.rounds import (
    FRESH_TEMPERATURE,
    Owed,
    OwedBallot,
    OwedCritique,
    OwedDecision,
    OwedDraft,
    OwedEvidence,
    OwedRepair,
    OwedTests,
    owed,
)
from fleet.council.state import CouncilState, evolve
from fleet.council.tally import Decided
from fleet.council.tests_filter import TestRuns, filter_tests
from fleet.kernel.digest import digest_of, digest_of_json
from fleet.kernel.errors import BudgetExceeded, FleetError, ReplyMalformed
from fleet.kernel.ids import Digest, EntityId
from fleet.models.replies.json_reply import json_object
from fleet.models.replies.replies import critique_schema, parse_reply

_ROLE = "developer"
_VOTE_TOKENS = 90
"""Of a reply, for one candidate on the ballot."""


@dataclass(frozen=True, slots=True)
class CouncilRules:
    """config/council.yaml, with the size and the rounds of this benchmark."""

    config: CouncilConfig
    seats: int
    rounds: int

    def opened(self, task_id: str, seed: int) -> CouncilTerms:
        """The council of one task; the same task and seed is the same council."""
        name = digest_of_json([task_id, seed]).hex[:16]
        roster = build_roster("selection", "code_patch", proposer_role=_ROLE, num_agents=self.seats, config=self.config)
        return CouncilTerms(
            council_id=f"co-{name}",
            kind="selection",
            output_kind="code_patch",
            roster=roster,
            rounds=self.rounds,
            quorum=quorum_of("selection", self.seats),
            seed=derive_seed(f"{name}/{seed}"),
            rubric_digest=digest_of_json(["the hidden tests pass"]),
            rule_version=self.config.rule_version,
            double_ballot=self.config.defaults.double_ballot,
            max_on_ballot=self.config.defaults.max_on_ballot,
            critiques=self.config.defaults.critiques,
        )


async def deliberate(solver: Solver, rules: CouncilRules) -> Solved:
    """The winner of a council on the task.

    Where it decides nothing the best by evidence stands, and `ended` says `undecided`: in the product a person decides.
    """
    session = _Session(solver, CouncilState(rules.opened(solver.task.task_id, solver.seed)))
    await session.hold()
    return session.solved()


@dataclass(slots=True)
class _Session:
    """One deliberation under way."""

    solver: Solver
    state: CouncilState
    solutions: dict[str, Solution] = field(default_factory=dict[str, Solution])
    """By digest."""
    tests: AuthoredTests = AuthoredTests()
    critiques: dict[str, str] = field(default_factory=dict[str, str])
    """Text of each critique by its digest."""
    results: dict[str, Mapping[str, CaseResult]] = field(default_factory=dict[str, Mapping[str, CaseResult]])
    """What the runs showed, by normal form."""

    async def hold(self) -> None:
        """Every duty is answered until only the decision is left."""
        duties = owed(self.state)
        while not any(isinstance(duty, OwedDecision) for duty in duties):
            # Tests first: they are worth more than the last draft where the budget does not hold both.
            for duty in sorted(duties, key=lambda d: not isinstance(d, OwedTests)):
                before = self.solver.meter.spent
                for fact in await self._answer(duty, before):
                    self.state = evolve(self.state, fact)
                if self.state.interrupted is not None:
                    break
            duties = owed(self.state)

    async def _answer(self, duty: Owed, before: int) -> tuple[Fact, ...]:
        try:
            return await self._facts(duty, before)
        except (BudgetExceeded, ReplyMalformed) as error:
            return (self._failed(duty, error, self.solver.meter.spent - before),)

    async def _facts(self, duty: Owed, before: int) -> tuple[Fact, ...]:
        meter = self.solver.meter
        match duty:
            case OwedDraft(member):
                solution = await self._drafted(member)
                seat, name = str(member.member_id), self._candidate_id(member)
                digests = self._kept(solution)
                return (DeliveredDraft(seat, name, *digests, tokens=meter.spent - before),)
            case OwedTests(member):
                self.tests = await self.solver.author_tests()
                digest, count = digest_of(self.tests.code.encode()), len(self.tests.cases)
                return (DeliveredTests(str(member.member_id), digest, count, tokens=meter.spent - before),)
            case OwedEvidence():
                return await self._evidence(duty)
            case OwedCritique(number, candidate, critic):
                text = await self._critique(candidate)
                ref = digest_of(text.encode())
                self.critiques[ref] = text
                spent = meter.spent - before
                return (DeliveredCritique(number, candidate, str(critic.member_id), ref, tokens=spent),)
            case OwedRepair():
                solution = await self._repaired(duty)
                digests = self._kept(solution)
                return (DeliveredRepair(duty.round, duty.candidate_id, *digests, tokens=meter.spent - before),)
            case OwedBallot():
                ballot = await self._ballot(duty)
                return (CastBallot(ballot, tokens=meter.spent - before),)
            case OwedDecision() | OwedEstimate():
                return ()  # a benchmark selects; it estimates nothing
            case _:
                assert_never(duty)

    def _failed(self, duty: Owed, error: FleetError, tokens: int) -> Fact:
        """The fact that settles a duty whose call gave nothing; without tokens no ballot is asked for any more."""
        match duty:
            case OwedDraft(member):
                return MissingDraft(str(member.member_id), error.code, tokens=tokens)
            case OwedTests(member):
                return MissingTests(str(member.member_id), error.code, tokens=tokens)
            case OwedCritique(number, candidate, critic):
                return MissingCritique(number, candidate, str(critic.member_id), error.code, tokens=tokens)
            case OwedRepair(number, candidate):
                return MissingRepair(number, candidate, error.code, tokens=tokens)
            case OwedBallot(voter, paper) if isinstance(error, ReplyMalformed):
                return RefusedBallot(str(voter.member_id), paper.attempt, "invalid", tokens=tokens)
            case OwedBallot():
                return Interrupted("budget_exhausted")
            case OwedEvidence() | OwedDecision() | OwedEstimate():
                raise error
            case _:
                assert_never(duty)

    def _candidate_id(self, member: Member) -> str:
        return f"cd-{member.member_id}"

    def _kept(self, solution: Solution) -> tuple[Digest, Digest]:
        self.solutions[solution.digest] = solution
        return solution.digest, solution.normal_digest

    async def _drafted(self, member: Member, round: int = 0) -> Solution:
        seats = [m.member_id for m in self.state.opened.proposers]
        # Seat n uses the random numbers of draft n, so that other arms and the council share what they can.
        number = round * len(seats) + seats.index(member.member_id)
        at = FRESH_TEMPERATURE if round else member.temperature
        return await self.solver.draft(number, temperature=at, variant=member.prompt_variant)

    def _version(self, candidate_id: str, upto: int) -> Solution:
        digest = next(v.digest for v in self.state.versions(upto) if v.candidate_id == candidate_id)
        return self.solutions[digest]

    # Evidence (P2)

    @property
    def _inputs(self) -> tuple[ProgramCase, ...]:
        known = [*self.tests.calls]
        for case in self.solver.visible:
            known += calls_in(case.code, self.solver.task.entry_point)
        return tuple(ProgramCase(f"input-{n}", "call", c) for n, c in enumerate(dict.fromkeys(known)))[:MAX_INPUTS]

    async def _measured(self, solution: Solution) -> Mapping[str, CaseResult]:
        """One run for everything; generated tests run twice in it, so that unstable ones are seen."""
        key = str(solution.normal_digest)
        if key not in self.results:
            again = [ProgramCase(f"{c.id}/again", c.kind, c.code) for c in self.tests.cases]
            build = () if self.solver.task.is_repository else (ProgramCase("build", "test", "pass"),)
            cases = (*build, *self.solver.visible, *self.tests.cases, *again, *self._inputs)
            self.results[key] = await self.solver.run(solution, cases)
        return self.results[key]

    def _gates(self, results: Mapping[str, CaseResult]) -> tuple[GateCheck, ...]:
        built = [GateCheck(name="build", ok=results["build"].outcome == "passed")] if "build" in results else []
        given = [GateCheck(name=f"given-{c.id}", ok=results[c.id].outcome == "passed") for c in self.solver.visible]
        return (GateCheck(name="applies", ok=True), *built, *given)

    async def _evidence(self, duty: OwedEvidence) -> tuple[Fact, ...]:
        shown = {c: await self._measured(self._solution(c, duty.round)) for c in duty.candidates}
        facts: list[Fact] = []
        filtered = self.state.filtered
        if duty.filter_tests:
            passing = {c: r for c, r in self._known(duty, shown).items() if all(g.ok for g in self._gates(r))}
            if passing:
                filtered = self._filtered(passing)
                facts.append(filtered)
        kept = filtered.kept if filtered is not None else ()
        facts += [MeasuredCandidate(self._evidence_of(c, r, kept, duty.round)) for c, r in shown.items()]
        return tuple(facts)

    def _solution(self, candidate_id: str, number: int) -> Solution:
        repair = self.state.repairs.get((candidate_id, number))
        if isinstance(repair, DeliveredRepair):
            return self.solutions[repair.digest]
        return self._version(candidate_id, max(0, number - 1))

    def _known(
        self, duty: OwedEvidence, shown: Mapping[str, Mapping[str, CaseResult]]
    ) -> dict[str, Mapping[str, CaseResult]]:
        older = {v.candidate_id: self.results.get(str(v.normal_digest)) for v in self.state.versions(duty.round)}
        return {c: r for c, r in older.items() if r is not None} | dict(shown)

    def _filtered(self, passing: Mapping[str, Mapping[str, CaseResult]]) -> KeptTests:
        given = {k: v for c in self.solver.visible for k, v in self._expected(c.code).items()}
        runs = [
            TestRuns(
                test_id=case.id,
                is_collected=True,
                runs={c: (r[case.id].outcome, r[f"{case.id}/again"].outcome) for c, r in passing.items()},
                contradicts_example=self._contradicts(case, given),
            )
            for case in self.tests.cases
        ]
        found = filter_tests(runs)
        return KeptTests(found.kept, found.dropped, found.trusted)

    def _expected(self, code: str) -> dict[str, str]:
        return expectations_in(code, self.solver.task.entry_point)

    def _contradicts(self, case: ProgramCase, given: Mapping[str, str]) -> bool:
        name = case.code.rstrip().rsplit("\n", 1)[-1].removesuffix("()")
        body = case.code.partition(f"def {name}(")[2].partition("\ndef ")[0]
        claimed = self._expected(f"def {name}({body}")
        return any(given.get(call, value) != value for call, value in claimed.items())

    def _evidence_of(
        self, candidate: str, results: Mapping[str, CaseResult], kept: Sequence[str], number: int
    ) -> CandidateEvidence:
        gates = self._gates(results)
        behaviour = {c.code: results[c.id].value or results[c.id].outcome for c in self._inputs if c.id in results}
        return CandidateEvidence(
            candidate_id=EntityId(candidate),
            round=number,
            gates=gates,
            gates_ok=all(g.ok for g in gates),
            trusted_passed=sum(results[test].outcome == "passed" for test in kept),
            trusted_total=len(kept),
            cluster_id=cluster_id_of(candidate, behaviour),
            cluster_size=1,
            diff_lines=self._solution(candidate, number).lines,
        )

    # Critique and repair (P4)

    def _failures(self, candidate_id: str) -> str:
        number = max((n for _, n in self.state.repairs), default=0)
        solution = self._version(candidate_id, number)
        results = self.results.get(str(solution.normal_digest), {})
        kept = self.state.filtered.kept if self.state.filtered is not None else ()
        trusted = [c for c in self.tests.cases if c.id in kept]
        return failures_of(results, (*self.solver.visible, *trusted)) or failures_of(
            results, (ProgramCase("build", "test", ""),)
        )

    async def _critique(self, candidate_id: str) -> str:
        number = max((n for _, n in self.state.repairs), default=0)
        code = self._version(candidate_id, number).text
        own = f"Code:\n```python\n{code}```\nWhat failed:\n{self._failures(candidate_id)}"
        schema = critique_schema()

        def parse(text: str) -> str:
            value = parse_reply(text, "stop", kind="critique", json_schema=schema)
            return "\n".join(str(v) for v in value.values() if isinstance(v, str))[:800]

        salt = f"critique/{number}/{candidate_id}"
        return await self.solver.ask_json("critique", own=own, schema=schema, salt=salt, parse=parse, max_tokens=160)

    async def _repaired(self, duty: OwedRepair) -> Solution:
        if duty.is_fresh:
            return await self._drafted(duty.author, duty.round)
        return await self.solver.repair(
            self._version(duty.candidate_id, duty.round - 1),
            self._failures(duty.candidate_id),
            number=duty.round,
            critique=self.critiques.get(duty.critique or "", ""),
            temperature=duty.author.temperature,
        )

    # Ballots (P5)

    async def _ballot(self, duty: OwedBallot) -> Ballot:
        paper = duty.paper
        schema = ballot_schema(paper.labels)
        evidence = {c.candidate_id: c for c in self.state.contenders()}
        candidates = {c.candidate_id: c for c in self.state.candidates()}
        shown: list[str] = []
        for entry in paper.entries:
            found, code = evidence[entry.candidate_id], self.solutions[candidates[entry.candidate_id].digest].text
            tests = f"passes {found.trusted_passed} of {found.trusted_total} tests by an independent author"
            shown.append(f"Candidate {entry.label}: {tests}; {found.cluster_size} behave like it\n```python\n{code}```")
        return await self.solver.ask_json(
            "vote",
            own="\n\n".join(shown),
            schema=schema,
            salt=f"vote/{duty.voter.member_id}/{paper.attempt}",
            parse=lambda text: read_ballot(json_object(text), paper),
            max_tokens=_VOTE_TOKENS * len(paper.labels),
        )

    # Decision (P6)

    def solved(self) -> Solved:
        """The decision with what simpler rules would have chosen of the same drafts."""
        conclusion = conclude(self.state)
        result = conclusion.result
        if isinstance(result, Decided):
            winner, ended = result.winner, result.decided_in
        else:
            best = min(self.state.contenders(), key=order_key, default=None)
            winner, ended = best.candidate_id if best else None, f"undecided: {result.reason}"
        digests = {c.candidate_id: c.digest for c in self.state.candidates()}
        pick = self.solutions[digests[winner]] if winner is not None else None
        rules: tuple[Literal["first_draft", "best_of_n"], ...] = ("first_draft", "best_of_n")
        simpler = {rule: self._counterfactual(conclusion, rule) for rule in rules}
        before_repair = self._by_evidence(0)
        return Solved(pick, ended, {**simpler, "plurality": self._plurality(), "before_repair": before_repair})

    def _counterfactual(self, conclusion: Conclusion, rule: str) -> Solution | None:
        found = conclusion.counterfactuals.get(rule)
        return self.solutions.get(found.digest) if found is not None else None

    def _by_evidence(self, upto: int) -> Solution | None:
        best = min(self.state.contenders(upto), key=order_key, default=None)
        return self.solutions.get(best.digest) if best is not None else None

    def _plurality(self) -> Solution | None:
        """One of the largest cluster of behaviour among the drafts, whatever tests say."""
        measured = [(c, c.evidence.cluster_id) for c in self.state.candidates(0) if c.evidence is not None]
        sizes: Counter[str] = Counter()
        for candidate, cluster in measured:
            sizes[cluster] += len(candidate.authors)
        best = min(measured, key=lambda m: (-sizes[m[1]], self.solutions[m[0].digest].lines, m[0].digest), default=None)
        return self.solutions[best[0].digest] if best is not None else None
