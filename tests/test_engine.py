"""The engine: from distinct prompts to answers, with every answer paid for once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import smartsql
from smartsql.asking.backends import build
from smartsql.config import Model, Settings, load
from smartsql.engine import Answered, Engine
from smartsql.errors import (
    AnswerFormatError,
    BudgetError,
    CancelledError,
    ConfigError,
    GatewayError,
    ParameterError,
    RateLimitError,
    VerificationError,
)
from smartsql.gateway import Attempt
from smartsql.ledger import Ledger
from smartsql.policies import Policy, Steps
from smartsql.policies.exact.exact import Exact
from smartsql.policies.reference import Reference
from smartsql.profile import Problem, Profile
from smartsql.reports.verify import verify
from smartsql.sql.protocol import Call
from smartsql.types import Ask, Plan
from tests.helpers import ScriptedBackend

CALL = Call("review", 0.1, 0.95, None)
FILE = """
[[models]]
name = "big"
reference = true
[[models]]
name = "small"
[tasks.tone]
prompt = "Tone of {input}?"
labels = ["good", "bad"]
"""


class HalfAndHalf:
    """Audits the first rows, has the candidate answer the others."""

    name = "half"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        first = problem.population.prompts_between(0, problem.population.n_rows // 2)
        yield [Ask("big", first), Ask("small", first)]
        assigned = np.ones(problem.population.n_prompts, dtype=np.int64)
        assigned[first] = 0
        return Plan(assigned, bound=0.1, audited_rows=first.size)


class World:
    """An engine with scripted models on a ledger file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        (folder / "smartsql.toml").write_text(FILE)
        self.path = folder / "answers.sqlite"
        self.settings = load(folder / "smartsql.toml", store=str(self.path), **settings)
        self.big = ScriptedBackend("big", lambda text: "good", 0.01)
        self.small = ScriptedBackend("small", lambda text: "Good.", 0.001)

    def engine(self, policy: Policy | None = None) -> Engine:
        backends = {"big": self.big, "small": self.small}
        return Engine(self.settings, backends, Ledger(self.path), policy=policy or HalfAndHalf())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def asked(
    engine: Engine, texts: list[str], weights: list[int] | None = None, call: Call = CALL
) -> Answered:
    return engine.answer(call, pa.array(texts), np.array(weights or [1] * len(texts)))


TEXTS = [f"review {i}" for i in range(40)]


def test_every_prompt_is_answered_in_the_order_given(world: World) -> None:
    world.big.answer = world.small.answer = lambda text: text.upper()
    answers = asked(world.engine(), TEXTS)
    assert answers.answer.to_pylist() == [text.upper() for text in TEXTS]
    sources = answers.source.to_pylist()
    assert sources.count("reference") == 20
    assert sources.count("assigned") == 20
    by = dict(zip(sources, answers.model.to_pylist(), strict=True))
    assert by == {"reference": "big", "assigned": "small"}
    assert sum(answers.cost_usd.to_pylist()) == pytest.approx(20 * 0.011 + 20 * 0.001)


def test_a_second_run_asks_nobody_and_takes_the_same_decisions(world: World) -> None:
    first = asked(world.engine(), TEXTS)
    engine = world.engine()
    again = asked(engine, list(reversed(TEXTS)))
    assert max(world.big.asked.values()) == max(world.small.asked.values()) == 1
    assert sum(world.big.asked.values()) == 20
    assert again.model.to_pylist() == list(reversed(first.model.to_pylist()))
    assert set(again.source.to_pylist()) == {"cached"}
    assert engine.history[-1].spend_usd == 0.0


def test_weights_are_rows_and_prompts_are_asked_once(world: World) -> None:
    engine = world.engine(Reference())
    asked(engine, ["a", "b"], [40, 2])
    report = engine.history[-1]
    assert (report.rows, report.prompts, report.reference_rows) == (42, 2, 42)
    assert report.reference_spend_usd == pytest.approx(0.02)
    assert world.big.asked == {"a": 1, "b": 1}


def test_the_report_is_in_the_ledger_and_can_be_verified(world: World) -> None:
    engine = world.engine(Reference())
    asked(engine, TEXTS)
    report = engine.history[-1].to_dict()
    checks = verify(report, Ledger(world.path))
    assert [c for c in checks if not c.holds] == []
    assert {c.what for c in checks} >= {"rows", "seed of the order", "spend of the run", "bound"}


def test_a_report_of_the_time_before_routing_still_verifies(world: World) -> None:
    engine = world.engine(Exact())
    texts = [f"review {i}" for i in range(400)]
    asked(engine, texts)
    made = engine.history[-1].to_dict()
    assert made["assigned_rows"] > 0
    old = {**made, "strategy": "certified"}
    old["certificate"] = {**made["certificate"], "procedure": "certified"}
    store = Ledger(world.path)
    store.end_run(made["run"], json.dumps(old))
    checks = verify(old, store)
    assert [c for c in checks if not c.holds] == []
    assert {c.what for c in checks} >= {"risk of the design", "certificate of the run"}


def test_seconds_of_loading_are_told_and_make_no_model_look_dear(tmp_path: Path) -> None:
    loaded: list[str] = []

    def after_loading(name: str, seconds: float, texts: list[str]) -> list[str]:
        if name not in loaded:
            loaded.append(name)
            time.sleep(0.4)
        time.sleep(seconds * len(texts))
        return ["good" if len(text) % 2 else "bad" for text in texts]

    def slow(texts: list[str]) -> list[str]:
        return after_loading("slow", 0.004, texts)

    def quick(texts: list[str]) -> list[str]:
        return after_loading("quick", 0.0002, texts)

    settings = Settings(
        store=str(tmp_path / "a.sqlite"),
        models=(
            Model(name="slow", kind="python", function=slow, reference=True, version="1"),
            Model(name="quick", kind="python", function=quick, version="1"),
        ),
    )
    engine = Engine(settings, build(settings), Ledger(settings.store))
    asked(engine, [f"review {i}" for i in range(300)])
    report = engine.history[-1]
    engine.close()
    costs = {model.name: model.mean_cost for model in report.models}
    assert costs["slow"] < 0.008
    assert costs["quick"] < 0.002
    assert report.spend < 0.8 * report.reference_spend
    told = [note for note in report.notes if "which no cost of an answer contains" in note]
    assert [note.split()[0] for note in told] == ["quick", "slow"]
    checks = verify(report.to_dict(), Ledger(settings.store))
    assert [c for c in checks if not c.holds] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 1}, "seed of the order"),
        ({"rows": 41}, "rows"),
        ({"spend": 0.1}, "spend of the run"),
        ({"bound": 0.01}, "bound"),
        ({"answers_digest": "00"}, "who answers each row"),
        ({"reference_rows": 39}, "rows of the reference"),
        ({"assigned_rows": 1}, "rows of candidates"),
        ({"error_rows": 1}, "rows without an answer"),
        ({"reference_spend": 9.0}, "spend of the reference alone"),
        ({"spend_usd": 0.0}, "dollars of the run"),
        ({"prompts": 4}, "distinct prompts"),
        ({"call": "smart_llm(other)"}, "the report itself"),
    ],
)
def test_a_report_that_was_changed_does_not_verify(
    world: World, change: dict[str, Any], what: str
) -> None:
    engine = world.engine(Reference())
    asked(engine, TEXTS)
    checks = verify({**engine.history[-1].to_dict(), **change}, Ledger(world.path))
    assert what in [c.what for c in checks if not c.holds]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"calls": 3}, "calls of the run"),
        ({"cost_usd": 0.001}, "dollars for big"),
        ({"rows": 1}, "rows by model"),
    ],
)
def test_a_models_part_that_was_changed_does_not_verify(
    world: World, change: dict[str, Any], what: str
) -> None:
    engine = world.engine(Reference())
    asked(engine, TEXTS)
    report = engine.history[-1].to_dict()
    report["models"][0].update(change)
    assert what in [c.what for c in verify(report, Ledger(world.path)) if not c.holds]


def test_a_failure_that_was_answered_later_leaves_the_earlier_report_true(tmp_path: Path) -> None:
    world = World(tmp_path, on_error="null")
    world.big.answer = lambda text: Attempt(0, True, "empty") if text == "review 7" else "good"
    first, second = world.engine(Reference()), world.engine(Reference())
    asked(first, TEXTS)
    world.big.answer = lambda text: "good"
    answers = asked(second, TEXTS)
    assert answers.answer.null_count == 0
    for engine in (first, second):
        checks = verify(engine.history[-1].to_dict(), Ledger(world.path))
        assert [c for c in checks if not c.holds] == []


def test_calls_of_one_statement_share_its_budget(tmp_path: Path) -> None:
    world = World(tmp_path, budget_usd=0.105)
    engine = world.engine(Reference())
    calls = [Call(name, 0.1, 0.95, None, statement=7) for name in ("a", "b")]
    asked(engine, TEXTS[:8], call=calls[0])
    with pytest.raises(BudgetError, match=r"may cost up to \$0\.01"):
        asked(engine, TEXTS[8:], call=calls[1])
    assert sum(world.big.asked.values()) == 10
    asked(engine, TEXTS[20:28], call=Call("c", 0.1, 0.95, None, statement=8))


def test_models_that_read_the_cell_do_not_share_answers_over_templates(tmp_path: Path) -> None:
    (tmp_path / "smartsql.toml").write_text(
        '[tasks.q]\nprompt = "Q: {input}"\n'
        '[[models]]\nname = "f"\nkind = "python"\nreference = true\n'
        'function = "tests.models:echo"\n'
    )
    settings = load(tmp_path / "smartsql.toml", store=str(tmp_path / "a.sqlite"))
    engine = Engine(settings, build(settings), Ledger(settings.store))
    one = asked(engine, ["x"], call=Call("x", 0.1, 0.95, "q"))
    other = asked(engine, ["Q: x"], call=Call("x", 0.1, 0.95, None))
    assert (one.answer.to_pylist(), other.answer.to_pylist()) == (["x!"], ["Q: x!"])
    engine.close()


def test_a_cancel_ends_the_calls_of_one_connection_only(world: World) -> None:
    engine = world.engine(Reference())

    def answer(text: str) -> str:
        engine.cancel(2)
        return "good"

    world.big.answer = answer
    asked(engine, TEXTS, call=Call("x", 0.1, 0.95, None, connection=1))
    with pytest.raises(CancelledError):
        asked(engine, ["other"], call=Call("x", 0.1, 0.95, None, connection=2))


def test_a_missing_answer_does_not_verify(world: World) -> None:
    engine = world.engine(Reference())
    asked(engine, TEXTS)
    engine.store._db.execute("DELETE FROM answers WHERE prompt = (SELECT max(prompt) FROM answers)")
    checks = verify(engine.history[-1].to_dict(), engine.store)
    assert "1 answers of 'big'" in next(c.detail for c in checks if c.what == "answers")


def test_a_report_of_another_ledger_or_no_report_is_said_so(world: World) -> None:
    engine = world.engine(Reference())
    asked(engine, TEXTS)
    with pytest.raises(VerificationError, match="holds no statement"):
        verify(engine.history[-1].to_dict(), Ledger.in_memory())
    with pytest.raises(VerificationError, match="not a report"):
        verify({"hello": 1}, Ledger.in_memory())


def test_what_a_candidate_fails_goes_to_the_reference(world: World) -> None:
    world.small.answer = lambda text: Attempt(0, True, "refused") if text.endswith("7") else "good"
    answers = asked(world.engine(), TEXTS)
    assert answers.answer.to_pylist() == ["good"] * 40
    failed = {t for t in TEXTS if t.endswith("7")}
    assert failed <= set(world.big.asked)
    assert answers.error.null_count == 40


REFUSALS: list[tuple[Callable[[str], str | Attempt], type[Exception], str]] = [
    (lambda t: Attempt(0, True, "empty"), AnswerFormatError, "its answer is empty"),
    (lambda t: Attempt(0, True, "cut"), AnswerFormatError, "cut off"),
    (lambda t: Attempt(0, True, "refused"), AnswerFormatError, "refused"),
    (lambda t: Attempt(0, True, "rate_limited", error="429 at last"), RateLimitError, "429"),
    (lambda t: Attempt(0, True, "connection", error="refused by host"), GatewayError, "by host"),
    (lambda t: Attempt(0, True, "malformed", error="got HTML"), GatewayError, "got HTML"),
]

OUTSIDE = (lambda t: "neither", AnswerFormatError, "none of the labels")


@pytest.mark.parametrize(("answer", "kind", "message"), REFUSALS)
def test_a_row_the_reference_fails_is_a_clear_error_that_loses_nothing(
    world: World, answer: Callable[[str], str | Attempt], kind: type[Exception], message: str
) -> None:
    call = Call("review", 0.1, 0.95, "tone")
    world.big.answer = lambda text: answer(text) if text == "review 7" else "good"
    with pytest.raises(kind, match=message):
        asked(world.engine(Reference()), TEXTS, call=call)
    paid = sum(world.big.asked.values())
    world.big.answer = lambda text: "good"
    answers = asked(world.engine(Reference()), TEXTS, call=call)
    assert answers.answer.to_pylist() == ["good"] * 40
    again = sum(world.big.asked.values()) - paid
    assert again == 40 - paid + 1  # all that was not delivered before, and the failed one


def test_an_answer_outside_the_labels_is_paid_once_and_stays_an_error(world: World) -> None:
    call = Call("review", 0.1, 0.95, "tone")
    world.big.answer = lambda text: "neither" if text == "review 7" else "good"
    for _ in range(2):
        with pytest.raises(AnswerFormatError, match="'neither', which is none of the labels"):
            asked(world.engine(Reference()), TEXTS, call=call)
    assert max(world.big.asked.values()) == 1


@pytest.mark.parametrize(("answer", "kind", "message"), [*REFUSALS, OUTSIDE])
def test_with_on_error_null_such_a_row_says_why_and_counts_as_different(
    tmp_path: Path,
    answer: Callable[[str], str | Attempt],
    kind: type[Exception],
    message: str,
) -> None:
    world = World(tmp_path, on_error="null")
    world.big.answer = lambda text: answer(text) if text == "review 7" else "good"
    engine = world.engine(Reference())
    answers = asked(engine, TEXTS, call=Call("review", 0.1, 0.95, "tone"))
    row = answers.answer.to_pylist().index(None)
    assert TEXTS[row] == "review 7"
    assert message in answers.error.to_pylist()[row]
    assert answers.source.to_pylist()[row] == "error"
    assert answers.answer.null_count == answers.error.null_count - 38 == 1
    report = engine.history[-1]
    assert (report.error_rows, report.bound) == (1, pytest.approx(1 / 40))
    assert [c for c in verify(report.to_dict(), Ledger(world.path)) if not c.holds] == []


def test_the_budget_stops_before_it_is_exceeded_and_a_rerun_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, budget_usd=0.105)
    with pytest.raises(BudgetError, match="run the statement again") as caught:
        asked(world.engine(Reference()), TEXTS)
    assert sum(world.big.asked.values()) == 10
    assert caught.value.spent_usd <= 0.105
    world.settings = load(tmp_path / "smartsql.toml", store=str(world.path), budget_usd=1.0)
    asked(world.engine(Reference()), TEXTS)
    assert world.big.asked == dict.fromkeys(TEXTS, 1)


def test_on_budget_null_gives_what_is_paid_for(tmp_path: Path) -> None:
    world = World(tmp_path, budget_usd=0.105, on_budget="null")
    engine = world.engine(Reference())
    answers = asked(engine, TEXTS)
    assert answers.answer.null_count == 30
    assert "budget" in next(e for e in answers.error.to_pylist() if e)
    assert engine.history[-1].error_rows == 30
    assert engine.history[-1].bound == pytest.approx(0.75)
    checks = verify(engine.history[-1].to_dict(), Ledger(world.path))
    assert [c for c in checks if not c.holds] == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (Call("x", 1.0, 0.95, None), ParameterError, "delta is 1.0"),
        (Call("x", -0.1, 0.95, None), ParameterError, "delta is -0.1"),
        (Call("x", float("nan"), 0.95, None), ParameterError, "delta is nan"),
        (Call("x", 0.1, 1.0, None), ParameterError, "gamma is 1.0"),
        (Call("x", 0.1, 0.0, None), ParameterError, "gamma is 0.0"),
        (Call("x", 0.1, 0.95, "tune"), ConfigError, "Did you mean 'tone'"),
    ],
)
def test_wrong_arguments_are_refused_before_any_call(
    world: World, call: Call, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        asked(world.engine(), TEXTS, call=call)
    assert not world.big.asked


def test_a_cancelled_statement_keeps_what_came_back(world: World) -> None:
    engine = world.engine(Reference())
    seen = 0

    def answer(text: str) -> str:
        nonlocal seen
        seen += 1
        if seen == 5:
            engine.cancel()
        return "good"

    world.big.answer = answer
    with pytest.raises(CancelledError):
        asked(engine, TEXTS)
    world.big.answer = lambda text: "good"
    asked(engine, TEXTS)
    assert world.big.asked == dict.fromkeys(TEXTS, 1)


def test_equal_asks_of_two_threads_are_one_call(world: World) -> None:
    """Two engines on one ledger file, as two processes would be."""
    barrier = threading.Barrier(2)
    answers: list[Answered] = []

    def work() -> None:
        engine = world.engine(Reference())
        barrier.wait()
        answers.append(asked(engine, TEXTS))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 2
    assert world.big.asked == dict.fromkeys(TEXTS, 1)


def test_models_reports_and_ledger_can_be_read_as_tables(world: World) -> None:
    engine = world.engine()
    asked(engine, TEXTS)
    assert engine.reports()["rows"].to_pylist() == [40]
    models = {row["name"]: row for row in engine.models().to_pylist()}
    assert models["big"]["role"] == "reference"
    assert models["big"]["calls"] == 20
    assert models["small"]["spend_usd"] == pytest.approx(0.04)
    ledger = engine.ledger()
    assert ledger.num_rows == 60
    assert set(ledger["status"].to_pylist()) == {"ok"}


def test_hostile_cells_change_their_own_answer_only(world: World) -> None:
    texts = ["{input}", "'; DROP TABLE x; --", "\x00\x1b[31m", "\u202eabc", "x" * 1_000_000, ""]
    world.big.answer = lambda text: f"len {len(text)}"
    answers = asked(world.engine(Reference()), texts)
    assert answers.answer.to_pylist() == [f"len {len(text)}" for text in texts]


def test_connecting_reads_nothing_of_what_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: Ledger) -> None:
        raise AssertionError("a long ledger would be read at every start")

    monkeypatch.setattr(Ledger, "attempts", read)
    monkeypatch.setattr(Ledger, "totals", read)
    model = Model(name="f", kind="python", function=lambda texts: texts, reference=True)
    settings = Settings(store=str(tmp_path / "l.sqlite"), models=(model,))
    with smartsql.connect(config=settings) as con:
        assert con.execute("SELECT 1").fetchall() == [(1,)]
