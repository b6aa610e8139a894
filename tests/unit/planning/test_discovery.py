"""A one-line goal becomes requirements, questions, an epic and stories, by rules alone and by a model (PL-54)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import InvalidInput
from fleet.models.replies.json_schema import schema_problems
from fleet.planning.coach import score_story
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import (
    DiscoveryProposal,
    discover,
    discovery_schema,
    read_proposal,
    requirements_text,
    with_answers,
)
from tests.support.rules import files

COACH = files().load("coach.yaml", CoachConfig)
GOAL = "A todo app with lists, reminders and sharing"


def found(goal: str = GOAL, *, is_empty: bool = True, language: str = "en") -> DiscoveryProposal:
    return discover(goal, language=language, is_empty=is_empty, config=COACH)


def score(story: Any, language: str = "en") -> int:
    criteria = story.acceptance_criteria
    return score_story(story.title, story.description, criteria, language=language, threshold=75, config=COACH).score


@pytest.mark.rule("PL-54")
def test_goal_with_a_list_becomes_a_scaffold_a_core_and_a_story_per_feature():
    proposal = found()
    assert [s.is_scaffold for s in proposal.stories] == [True, False, False, False, False]
    assert [s.depends_on for s in proposal.stories] == [(), (0,), (0, 1), (0, 1), (0, 1)]
    assert [r.text for r in proposal.requirements[1:]] == ["A todo app", "lists", "reminders", "sharing"]
    assert [r.stories for r in proposal.requirements] == [(0,), (1,), (2,), (3,), (4,)]
    assert proposal.epic.goal == GOAL
    assert all(GOAL in s.description for s in proposal.stories[1:])
    assert score(proposal.stories[0]) == 100


@pytest.mark.rule("PL-54")
def test_goal_for_a_repository_with_code_has_no_scaffold():
    proposal = found("Convert CSV files to JSON", is_empty=False)
    (story,) = proposal.stories
    assert not story.is_scaffold
    assert story.depends_on == ()
    assert story.description == "Convert CSV files to JSON"


def test_parts_between_semicolons_are_stories_of_their_own():
    proposal = found("Read a CSV file; print it as a table; sort it", is_empty=False)
    assert [s.description.split(". ")[0] for s in proposal.stories] == [
        "Read a CSV file",
        "print it as a table",
        "sort it",
    ]


@pytest.mark.rule("PL-54")
def test_no_proposal_has_more_than_twelve_stories():
    goal = "A shop with " + ", ".join(f"part {n}" for n in range(20)) + " and more"
    proposal = found(goal)
    assert len(proposal.stories) == 12
    assert "part 19" in proposal.stories[-1].description


@pytest.mark.rule("PL-54", "SC-50")
@pytest.mark.parametrize(
    "goal", ["", "abc", "x" * 301, "two\nlines of it", "...... !!!", "make something nice", "12345"]
)
def test_goal_that_names_nothing_to_build_is_refused(goal: str):
    with pytest.raises(InvalidInput, match="the goal"):
        found(goal)


def test_refusal_says_the_question_to_answer():
    with pytest.raises(InvalidInput) as refused:
        found("please build it")
    assert refused.value.details["question"] == "What shall be built, and what shall it do?"


@pytest.mark.rule("PL-54", "SC-51")
def test_every_placeholder_has_a_question_and_answers_make_a_story_ready():
    proposal = found("Convert CSV files to JSON", is_empty=False)
    asked = {q.placeholder: q.question_id for q in proposal.questions}
    assert set(asked) == {"user", "value", "context", "action", "outcome"}
    assert score(proposal.stories[0]) < 75
    answered = with_answers(
        proposal,
        {
            asked["user"]: "analyst",
            asked["value"]: "other tools can read them",
            asked["context"]: "a CSV file with two rows",
            asked["action"]: "I convert it",
            asked["outcome"]: "the JSON holds two objects",
        },
    )
    (story,) = answered.stories
    assert score(story) == 100
    assert story.title == "As a analyst, I want Convert CSV files to JSON so that other tools can read them"
    assert answered.unanswered == ()
    assert "qu-1: Who wants this? analyst" in requirements_text(answered)


@pytest.mark.parametrize("answer", ["", "   ", "x" * 301, "two\nlines", "<another>"])
def test_answer_of_the_wrong_form_is_refused(answer: str):
    with pytest.raises(InvalidInput, match="the answer to qu-1"):
        with_answers(found(), {"qu-1": answer})


def test_only_open_questions_are_answered():
    proposal = with_answers(found(), {"qu-1": "student"})
    for answers in ({}, {"qu-1": "teacher"}, {"qu-99": "teacher"}):
        with pytest.raises(InvalidInput):
            with_answers(proposal, answers)


def test_answer_that_makes_the_title_too_long_is_refused():
    with pytest.raises(InvalidInput, match="the title has"):
        with_answers(found(), {"qu-2": "x" * 200})


def test_requirements_name_goal_stories_order_and_open_questions():
    text = requirements_text(found())
    assert text.startswith(f"# {GOAL}\n\nGoal: {GOAL}\n")
    assert "2. A todo app (story 2)" in text
    assert "(after 1, 2)" in text
    assert "- qu-1: Who wants this? (open)" in text
    assert text == requirements_text(found())


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=5, max_size=300),
    st.booleans(),
    st.sampled_from(["en", "es", "fr", "de", "pt", "it"]),
)
def test_proposal_of_any_goal_is_deterministic_and_within_bounds(goal: str, is_empty: bool, language: str):
    try:
        proposal = found(goal, is_empty=is_empty, language=language)
    except InvalidInput:
        return
    assert proposal == found(goal, is_empty=is_empty, language=language)
    assert 1 <= len(proposal.stories) <= 12
    assert all(n < position for position, s in enumerate(proposal.stories) for n in s.depends_on)
    assert all(s < len(proposal.stories) for r in proposal.requirements for s in r.stories)


# What a model says.

STORY = {
    "title": "As a student I want to list my todos so that I forget nothing",
    "description": "The list shows every open todo so that a student sees what is left.",
    "acceptance_criteria": ["Given two todos, when I open the list, then both are shown"],
    "depends_on": [],
}


def value(*stories: dict[str, Any]) -> dict[str, Any]:
    return {"requirements": ["Todos are kept"], "questions": ["For how many people?"], "stories": list(stories)}


@pytest.mark.rule("PL-54")
def test_proposal_of_a_model_stands_behind_the_scaffold_of_the_rules():
    raw = value(STORY, STORY | {"title": "As a student I want to tick a todo", "depends_on": [0, 0]})
    assert list(schema_problems(raw, discovery_schema())) == []
    proposal = read_proposal(raw, found(), is_empty=True, config=COACH)
    assert isinstance(proposal, DiscoveryProposal)
    assert (proposal.source, [s.depends_on for s in proposal.stories]) == ("model", [(), (0,), (0, 1)])
    assert [q.text for q in proposal.questions] == ["For how many people?"]
    assert proposal.requirements[1].stories == (1, 2)
    plain = read_proposal(raw, found(is_empty=False), is_empty=False, config=COACH)
    assert isinstance(plain, DiscoveryProposal)
    assert [s.depends_on for s in plain.stories] == [(), (0,)]


@pytest.mark.rule("PL-54")
def test_everything_that_is_wrong_with_a_proposal_is_told():
    bad = {"title": "Tick", "description": "", "acceptance_criteria": ["It is fast"], "depends_on": [1]}
    problems = read_proposal(
        value(bad, STORY, STORY | {"description": "bell \x07"}), found(), is_empty=True, config=COACH
    )
    assert isinstance(problems, tuple)
    told = "\n".join(problems)
    assert "story 0 depends on 1" in told
    assert "story 0 scores" in told
    assert "story 2 has the title of another one" in told
    assert "story 2 holds a control character" in told


def test_story_over_a_limit_is_told():
    problems = read_proposal(value(STORY | {"title": "x" * 201}), found(is_empty=False), is_empty=False, config=COACH)
    assert isinstance(problems, tuple)
    assert problems[0].startswith("story 0: ")


@pytest.mark.rule("PL-54")
def test_answer_about_the_whole_stands_in_every_story_but_the_skeleton():
    story = {"title": "As a user, I want a cart so that I can pay", "description": "A cart.", "depends_on": []}
    criteria = ["Given a cart, when I add a book, then it has one book"]
    asked = {"requirements": ["a cart"], "questions": ["In which currency?"]}
    stories = [{**story, "acceptance_criteria": criteria}]
    read = read_proposal(asked | {"stories": stories}, found(), is_empty=True, config=COACH)
    assert isinstance(read, DiscoveryProposal)
    answered = with_answers(read, {"qu-1": "euros only"})
    assert [s.description.endswith("\n\nIn which currency? euros only") for s in answered.stories] == [False, True]
    assert answered.unanswered == ()
