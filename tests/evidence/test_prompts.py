"""Prompts that are made of a cell and of earlier answers, and verdicts that are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsql.calls.materials import Hints, remaining
from smartsql.calls.recipes import Recipe
from smartsql.calls.verification import (
    EXAMPLES,
    LONGEST,
    Verdicts,
    confidence,
    parameters_for,
    verdict,
    verification_prompt,
)
from smartsql.gateway import Attempt
from smartsql.tasks import Task
from smartsql.templates import fill

TASK = Task("tone", "Is this good or bad?\n\n{input}\n\nOne word.", ("good", "bad", "mixed"))


@given(st.dictionaries(st.sampled_from(["a", "b", "input"]), st.text(), min_size=1))
def test_values_are_put_in_once_and_never_looked_into(values: dict[str, str]) -> None:
    template = "x".join(f"{{{name}}}" for name in values)
    assert fill(template, values) == "x".join(values.values())
    assert fill("{other} {", values) == "{other} {"


def test_a_verification_prompt_shows_examples_task_answer_and_question() -> None:
    prompt = verification_prompt(TASK, "lovely", "good", LONGEST)
    assert prompt.endswith(f"Task: {TASK.render('lovely')}\nAnswer: good\nDecision:")
    assert all(f"Task: {question}" in prompt for question, _, _ in EXAMPLES)
    assert {verdict for _, _, verdict in EXAMPLES} == {"Correct", "Incorrect"}


@pytest.mark.parametrize("longest", [300, 600, 900, 1200])
def test_a_long_prompt_loses_examples_first_and_then_the_beginning_of_the_cell(
    longest: int,
) -> None:
    cell = "".join(f"sentence {i}. " for i in range(1000))
    prompt = verification_prompt(TASK, cell, "good", longest)
    assert len(prompt) <= max(longest, 400)
    assert "Is this good or bad?" in prompt
    assert prompt.endswith("sentence 999. \n\nOne word.\nAnswer: good\nDecision:")
    assert EXAMPLES[0][0] not in prompt
    assert "[...] " in prompt
    short = verification_prompt(TASK, "fine", "good", longest)
    assert "Is this good or bad?\n\nfine\n\nOne word." in short
    assert short.count("Decision: ") <= len(EXAMPLES)


def test_where_the_cell_is_the_whole_prompt_its_first_words_stay() -> None:
    prompt = verification_prompt(Task(), "Is it good? " + "so so " * 5000 + "end", "good", 2000)
    assert "Task: Is it good? " in prompt
    assert "so so end\nAnswer: good\nDecision:" in prompt
    assert len(prompt) <= 2000


@given(st.text(max_size=300), st.text(max_size=50), st.integers(0, 2000))
def test_any_cell_and_answer_make_a_prompt(cell: str, answer: str, longest: int) -> None:
    for task in (TASK, Task(), Task("twice", "{input} or {input}?")):
        prompt = verification_prompt(task, cell, answer, longest)
        assert prompt.endswith(f"\nAnswer: {answer}\nDecision:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Correct", True),
        (" incorrect.", False),
        ("The AI generated answer is Correct", True),
        ("It is not correct", False),
        ("Correct... no, incorrect", None),
        ("right", None),
        ("correctness", None),
        ("", None),
    ],
)
def test_verdicts_are_read_as_words(text: str, says: bool | None) -> None:
    assert verdict(text) is says


def attempt(text: str | None, confidence: float | None = None, **more: object) -> Attempt:
    return Attempt(0, True, "ok", text, confidence, **more)  # type: ignore[arg-type]


def test_the_confidence_is_the_probability_of_correct_where_there_is_one() -> None:
    scores = {"Correct": 0.3, "Incorrect": 0.7}
    assert confidence(attempt("Incorrect", 0.7, scores=scores)) == 0.3
    assert confidence(attempt("Incorrect", 0.9)) == pytest.approx(0.1)
    assert confidence(attempt("Correct", 0.9)) == 0.9
    assert confidence(attempt("Correct")) == 1.0
    assert np.isnan(confidence(attempt("perhaps", 0.9)))
    assert np.isnan(confidence(Attempt(0, True, "cut")))


def test_the_share_of_votes_does_not_depend_on_the_order_of_arrival() -> None:
    said = [attempt("Correct"), attempt("Incorrect"), attempt("hm"), attempt("correct.")]
    costs = [0.1, 0.2, 0.3, 0.7]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        verdicts = Verdicts(5, 4, votes=True)
        for k in order[:-1]:
            assert verdicts.add([3 + 5 * k], [said[k]], [costs[k]]).size == 0
        last = order[-1]
        done = verdicts.add([3 + 5 * last], [said[last]], [costs[last]])
        assert done.tolist() == [3]
        assert verdicts.confidences(done).tolist() == [2 / 3]
        assert verdicts.costs(done).tolist() == [1.3]


def test_samples_are_drawn_at_temperature_one_without_what_shapes_answers() -> None:
    given_ = {"temperature": 0, "seed": 1, "response_format": {}, "max_completion_tokens": 8}
    assert parameters_for(4, given_) == {"max_completion_tokens": 8, "temperature": 1.0}
    assert parameters_for("probability", given_) == {
        "max_completion_tokens": 8,
        "temperature": 0,
        "seed": 1,
    }


def hints(*scores: list[float]) -> list[Hints]:
    made = []
    for row in scores:
        hint = Hints(1, TASK.labels)
        hint.add([0], [attempt("good", 0.5, scores=dict(zip(TASK.labels, row, strict=True)))])
        made.append(hint)
    return made


def test_labels_that_all_hints_find_unlikely_are_left_out() -> None:
    assert remaining(hints([0.9, 0.08, 0.02]), 0, 0.05) == ("good", "bad")
    assert remaining(hints([0.9, 0.08, 0.02], [0.1, 0.2, 0.7]), 0, 0.05) == TASK.labels
    assert remaining(hints([0.01, 0.01, 0.98]), 0, 0.05) == ("good", "mixed")  # two stay at least
    unknown = Hints(1, TASK.labels)
    unknown.add([0], [attempt("good", 0.99)])
    assert remaining([unknown], 0, 0.05) == TASK.labels


def test_hints_in_words_say_what_is_known() -> None:
    (known,) = hints([0.905, 0.093, 0.002])
    assert known.sentence(0, "good", "A") == (
        'A smaller model gives the answers these probabilities: "good" 90%, "bad" 9%.'
    )
    plain = Hints(1, ())
    assert plain.sentence(0, "42", "Another") == 'Another smaller model answered "42".'
    plain.add([0], [attempt("42", 0.75)])
    assert plain.sentence(0, "42", "A") == 'A smaller model answered "42", 75% sure.'
    assert len(plain.sentence(0, "x" * 10_000, "A")) < 1100


def test_the_facts_of_a_recipe_are_read_back() -> None:
    recipe = Recipe("a", "a", "candidate", "hard", ("b", "c"), "{labels} {input}", prune_below=0.1)
    facts = recipe.facts()
    assert "{labels}" not in str(facts)
    assert Recipe.from_facts({**facts, "template": recipe.template}) == recipe
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_facts({"after": 3})


def test_an_identity_tells_templates_tasks_and_settings_apart() -> None:
    made = [
        Recipe("a", "a", "candidate", "soft", ("b",), "{hints} {input}"),
        Recipe("a", "a", "candidate", "soft", ("b",), "{hints}: {input}"),
        Recipe("a", "a", "candidate", "hard", ("b",), "{labels} {input}", prune_below=0.1),
        Recipe("a", "a", "candidate", "hard", ("b",), "{labels} {input}", prune_below=0.2),
        Recipe("v", "v", "verifier", "verification", ("b",), samples=2),
        Recipe("v", "v", "verifier", "verification", ("b",), samples=3),
    ]
    identities = {r.identity("x", task) for r in made for task in (TASK, Task())}
    assert len(identities) == 12
    assert made[4].identity("x", TASK, ["small"]) != made[4].identity("x", TASK, ["other"])
