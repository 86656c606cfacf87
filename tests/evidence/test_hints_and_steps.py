"""Hinted prompts and tasks in steps over real HTTP: what is sent, billed, kept, checked again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from smartsql.errors import BudgetError
from smartsql.sql.protocol import Call as SmartCall
from tests.evidence.worlds import LABELS, TEXTS, Made, cell_of, draw, judged, reply, truth
from tests.gateway.server import Answer, Call

HINTED = """
[[models]]
name = "hinted"
base_url = "{url}"
input_usd_per_mtok = 3.0
output_usd_per_mtok = 3.0
"""
STEPS = """
steps = [
  { name = "topic", model = "small", prompt = "Topic of <{input}>?", labels = ["food", "rooms"] },
  { name = "detail", model = "small", prompt = "What about the {topic} in <{input}>?" },
]
"""


def test_a_soft_hint_shows_the_small_models_probabilities(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(more=HINTED + 'hints = ["small"]')
    before = world.asked()
    prompts = {cell_of(call.prompt): call.prompt for call in world.calls("hinted")}
    assert set(prompts) == set(TEXTS)
    for cell, prompt in prompts.items():
        said = reply(Call(0, "small", f"<{cell}>", 0, {}, {})).text
        share = "60%" if draw("small" + cell) < 0.2 else "90%"
        assert f'"{said}" {share}' in prompt
        assert prompt.endswith(f"\n\nTone of <{cell}>?")
    plain = {call.prompt for call in (*world.calls("big"), *world.calls("small"))}
    assert plain == {f"Tone of <{text}>?" for text in TEXTS}
    assert {m.name: m.role for m in before[1].models}["hinted"] == "candidate"
    assert set(before[0].model.to_pylist()) == {"big", "hinted"}
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_without_probabilities_a_hint_says_what_is_known(made: Made) -> None:
    world = made(more=HINTED + 'hints = ["small"]')
    world.server.unsupported = ("logprobs",)
    world.asked()
    for call in world.calls("hinted"):
        said = reply(Call(0, "small", call.prompt, 0, {}, {})).text
        assert call.prompt.startswith(f'A smaller model answered "{said}".\n\n')


def test_a_hard_hint_leaves_out_what_the_small_model_rules_out(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints = 'hints = ["small"]\npruning = "hard"\nprune_below = 0.1'
    prompt = 'prompt = "Which of {labels} is <{input}>?"'
    world = made(more=f"{HINTED}{hints}\n{prompt}")
    removed: dict[str, str] = {}

    def answer(call: Call) -> Answer:
        """`small` rules out one label; `hinted` names the ruled-out label on some rows."""
        cell = cell_of(call.prompt)
        right = LABELS.index(truth(cell))
        if call.model == "small":
            removed[cell] = LABELS[(right + 1) % 3]
            said = judged(LABELS[right], 0.8)
            token, first, _ = said.logprobs[0]
            logs = {LABELS[right]: -0.223, removed[cell]: -4.0, LABELS[(right + 2) % 3]: -1.7}
            return Answer(said.text, [(token, first, list(logs.items()))])
        if call.model == "hinted":
            return judged(removed[cell] if draw("x" + cell) < 0.3 else LABELS[right], 0.9)
        return judged(LABELS[right], 0.9)

    world.server.reply = answer
    before = world.asked()
    for call in world.calls("hinted"):
        left = [label for label in LABELS if label != removed[cell_of(call.prompt)]]
        assert call.prompt == f"Which of {', '.join(left)} is <{cell_of(call.prompt)}>?"
    stubborn = sum(draw("x" + text) < 0.3 for text in TEXTS)
    assert stubborn > 10
    failed = {m.name: m.failed for m in before[1].models}
    assert failed["hinted"] == stubborn  # a label that was ruled out is no answer
    assert before[0].answer.to_pylist() == [truth(text) for text in TEXTS]
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_a_hint_that_failed_leaves_the_hinted_model_unasked(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(more=HINTED + 'hints = ["small"]')

    def sometimes(call: Call) -> Answer:
        lost = call.model == "small" and draw("lost" + cell_of(call.prompt)) < 0.3
        return Answer("no idea") if lost else reply(call)

    world.server.reply = sometimes
    before = world.asked()
    lost = {text for text in TEXTS if draw("lost" + text) < 0.3}
    assert {cell_of(call.prompt) for call in world.calls("hinted")} == set(TEXTS) - lost
    by = dict(zip(TEXTS, before[0].model.to_pylist(), strict=True))
    assert {by[text] for text in lost} == {"big"}
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_hostile_cells_and_answers_are_put_in_as_they_are(made: Made) -> None:
    texts = [
        "{hints}",
        "{input} {prompt} {labels}",
        "%s {0} {small.__class__}",
        "$1 \\1 \\g<0>",
        "{",
    ]
    world = made(more=HINTED + 'hints = ["small"]', task=STEPS)
    world.settings = world.settings.model_copy(
        update={
            "models": tuple(
                m.model_copy(update={"uses_steps": True, "hints": (), "prompt": None})
                if m.name == "hinted"
                else m
                for m in world.settings.models
            )
        }
    )

    def hostile(call: Call) -> Answer:
        if call.prompt.startswith("What about"):
            return Answer("{input} \\1 {topic} <>")
        if call.prompt.startswith("Topic"):
            return Answer("food")
        return Answer("good")

    world.server.reply = hostile
    world.asked(texts)
    sent = {call.prompt for call in world.calls("hinted")}
    head = "topic: food\ndetail: {input} \\1 {topic} <>\n\n"
    assert sent == {f"{head}Tone of <{text}>?" for text in texts}


def test_answers_to_steps_go_into_the_prompt_and_nowhere_else(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = 'prompt = "Say {topic}, {detail}: tone of <{input}>?"'
    world = made(more=f"{HINTED}uses_steps = true\n{prompt}", task=STEPS)

    def answer(call: Call) -> Answer:
        if call.prompt.startswith("Topic"):
            return Answer("Food." if draw("t" + cell_of(call.prompt)) < 0.5 else "rooms")
        return Answer("a detail") if call.prompt.startswith("What about") else reply(call)

    world.server.reply = answer
    before = world.asked()
    for call in world.calls("hinted"):
        topic = "food" if draw("t" + cell_of(call.prompt)) < 0.5 else "rooms"
        assert call.prompt == f"Say {topic}, a detail: tone of <{cell_of(call.prompt)}>?"
    begun = Counter(call.prompt.split()[0] for call in world.calls("small"))
    assert begun == {"Topic": 60, "What": 60, "Tone": 60}
    roles = {m.name: (m.role, m.calls, m.rows) for m in before[1].models}
    assert roles["tone.topic"] == roles["tone.detail"] == ("step", 60, 0)
    assert set(before[0].model.to_pylist()) <= {"big", "hinted"}
    models = {row["name"]: row["role"] for row in world.engine().models().to_pylist()}
    assert models["tone.topic"] == "step"
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_a_step_may_be_a_function_of_the_cell(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    function = '[[models]]\nname = "f"\nkind = "python"\nfunction = "tests.models:echo"\n'
    step = 'steps = [{ name = "shout", model = "f", prompt = "{input}" }]'
    world = made(more=f"{HINTED}uses_steps = true\n{function}", task=step)
    before = world.asked()
    sent = {call.prompt for call in world.calls("hinted")}
    assert sent == {f"shout: {text}!\n\nTone of <{text}>?" for text in TEXTS}
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_a_step_without_a_usable_answer_ends_there(made: Made) -> None:
    world = made(more=f"{HINTED}uses_steps = true", task=STEPS)

    def answer(call: Call) -> Answer:
        if call.prompt.startswith("Topic"):
            return Answer("neither" if draw("t" + cell_of(call.prompt)) < 0.4 else "food")
        return reply(call)

    world.server.reply = answer
    _, report = world.asked()
    usable = {text for text in TEXTS if draw("t" + text) >= 0.4}
    assert len(world.calls("hinted")) == len(usable)
    whats = [call for call in world.calls("small") if call.prompt.startswith("What")]
    assert {cell_of(call.prompt) for call in whats} == usable
    world.check_bill(report)


def test_models_whose_evidence_the_task_lacks_are_left_out_with_a_word(made: Made) -> None:
    steps = HINTED + "uses_steps = true"
    hard = HINTED.replace("hinted", "hard") + 'hints = ["small"]\npruning = "hard"'
    more = '[tasks.two]\nprompt = "Is {input} good?"\nlabels = ["yes", "no"]\n'
    world = made(more=f"{steps}\n{hard}\n{more}", task=STEPS)
    world.server.reply = lambda call: Answer("yes")
    _, report = world.asked(task="two")
    notes = " ".join(report.notes)
    assert "hinted was not used: it uses steps, and the task has none" in notes
    assert "hard was not used: hard pruning leaves 2 labels, and the task has 2" in notes
    assert [m.name for m in report.models] == ["big", "small"]


def test_the_budget_holds_for_steps_and_hints(made: Made) -> None:
    world = made(more=f"{HINTED}uses_steps = true", task=STEPS, budget_usd=0.008)
    with pytest.raises(BudgetError):
        world.asked()
    prices = {"big": 10.0, "small": 0.3, "hinted": 3.0}
    billed = world.server.bill
    spent = sum((b.prompt_tokens + b.completion_tokens) * prices[b.model] / 1e6 for b in billed)
    assert 0 < spent <= 0.008


def test_a_preview_prices_steps_and_hinted_prompts(made: Made) -> None:
    world = made(more=f"{HINTED}uses_steps = true", task=STEPS)
    call = SmartCall("review", 0.2, 0.9, "tone")
    preview = world.engine().preview(call, pa.array(TEXTS), np.ones(60, dtype=np.int64))
    models = {m.name: m for m in preview.models}
    assert not world.server.calls
    assert models["tone.topic"].role == "step"
    assert models["tone.topic"].cost_per_call > 0
    assert models["hinted"].prompt_tokens > models["big"].prompt_tokens


def test_a_hinted_model_may_be_verified_too(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    world = made(more=HINTED + 'hints = ["small"]\nverification = "probability"')
    before = world.asked()
    assert len(world.calls("hinted", verifying=True)) == len(TEXTS)
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)
