"""What statements would cost: every call reckoned, and nothing asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smartsql
from smartsql.preview import Preview
from smartsql.preview.reckoning import MOST, reckon
from smartsql.replay.recording import Recording
from smartsql.replay.runs import Case, measure
from smartsql.types import Requirement
from tests.models import big, small

PRICES = {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 100.0}
CHEAP = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}


@pytest.fixture
def con(tmp_path: Path) -> Any:
    models = (
        smartsql.Model(name="big", kind="python", function=big, reference=True, **PRICES),
        smartsql.Model(name="small", kind="python", function=small, **CHEAP),
    )
    store = str(tmp_path / "answers.sqlite")
    with smartsql.connect(config=smartsql.Settings(store=store, seed=3, models=models)) as opened:
        opened.execute(
            "CREATE TABLE t AS SELECT 'r ' || i AS r, 'n ' || (i % 50) AS n, i FROM range(200) g(i)"
        )
        opened.execute("CREATE VIEW v AS SELECT r, n, i, smart_llm(r) AS a FROM t")
        yield opened
        assert opened.reports == []  # nothing was ever asked


def seen(previews: list[Any]) -> list[tuple[str, int, int, bool]]:
    return [(p.call, p.rows, p.prompts, p.at_most) for p in previews if isinstance(p, Preview)]


R, R_MOST = ("smart_llm(r)", 200, 200, False), ("smart_llm(r)", 200, 200, True)
N, N_MOST = ("smart_llm(n)", 200, 50, False), ("smart_llm(n)", 200, 50, True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT smart_llm(r) FROM t", [R]),
        ("SELECT count(a) FROM v", [R]),
        ("SELECT smart_llm(r), smart_llm(n) FROM t", [R, N]),
        ("SELECT n FROM t WHERE smart_llm(r) = 'a' AND smart_llm(n) = 'b'", [R, N_MOST]),
        ("SELECT smart_llm(n) FROM t WHERE smart_llm(r) = 'a'", [R, N_MOST]),
        ("SELECT smart_llm(n) FROM v WHERE a = 'x'", [R, N_MOST]),
        ("SELECT smart_llm(n) FROM (SELECT n, a AS b FROM v) q WHERE b = 'x'", [R, N_MOST]),
        ("SELECT CASE WHEN smart_llm(r) = 'x' THEN smart_llm(n) END FROM t", [R, N_MOST]),
        ("SELECT smart_llm(n) FROM t WHERE i < 0 AND smart_llm(r) = 'a'", []),
        (
            "SELECT smart_llm(n) FROM t WHERE i < 20 AND smart_llm(r) = 'a'",
            [("smart_llm(r)", 20, 20, False), ("smart_llm(n)", 20, 20, True)],
        ),
    ],
)
def test_every_call_is_reckoned_at_most_where_its_rows_depend_on_answers(
    con: Any, query: str, expected: list[Any]
) -> None:
    assert sorted(seen(con.preview(query))) == sorted(expected)


def test_the_prompts_of_a_call_on_answers_are_one_for_each_row(con: Any) -> None:
    inner, outer = con.preview("SELECT smart_llm(smart_llm(r)) FROM t")
    assert seen([inner]) == [R]
    assert (outer.rows, outer.prompts, outer.at_most) == (200, 200, True)
    assert outer.low == 0 < outer.high
    assert "at most 200 rows, at most 200 distinct prompts" in str(outer)
    assert "at most" not in str(inner).splitlines()[0]
    (_, other) = con.preview("SELECT smart_llm(concat(a, '!')) FROM v")
    assert (other.prompts, other.at_most) == (200, True)


def test_what_is_asked_wave_by_wave_is_at_most_from_the_second_wave_on(con: Any) -> None:
    first, *others = con.preview("SELECT r FROM t WHERE smart_llm(r) = 'a' LIMIT 5")
    assert not first.at_most
    assert others
    assert all(other.at_most for other in others)
    assert sum(one.rows for one in (first, *others)) == 200


def test_a_call_behind_a_join_on_answers_is_not_passed_over_in_silence(con: Any) -> None:
    *known, text = con.preview("SELECT smart_llm(t.n) FROM t JOIN v ON v.a = t.n")
    assert seen(known) == [R]
    assert text.startswith("1 further call is not reckoned")


def test_a_preview_names_tokens_calls_money_and_seconds_of_each_model(con: Any) -> None:
    (preview,) = con.preview("SELECT smart_llm(r) FROM t")
    reference, candidate = preview.models
    prompt_tokens = con._con.execute("SELECT sum(ceil(strlen(r) / 4))::INT FROM t").fetchone()[0]
    for model in (reference, candidate):
        assert (model.prompt_tokens, model.completion_tokens) == (prompt_tokens, 200)
        low, expected, high = model.calls
        assert 0 < low <= expected <= high <= 200
    assert preview.reference_spend == pytest.approx((prompt_tokens + 200) * 100 / 1e6)
    assert preview.low < preview.expected < preview.high <= 1.3 * preview.reference_spend
    text = str(preview)
    assert f"{prompt_tokens:,} tokens in, 200 out" in text
    assert "reference only: $" in text
    assert json.loads(json.dumps(preview.to_dict()))["models"][0]["calls"] == list(reference.calls)


def test_what_is_paid_for_is_not_reckoned_again(tmp_path: Path) -> None:
    models = (
        smartsql.Model(name="big", kind="python", function=big, reference=True, **PRICES),
        smartsql.Model(name="small", kind="python", function=small, **CHEAP),
    )
    settings = smartsql.Settings(store=str(tmp_path / "a.sqlite"), seed=3, models=models)
    with smartsql.connect(config=settings) as con:
        con.execute("CREATE TABLE t AS SELECT 'r ' || i AS r, i FROM range(400) g(i)")
        con.execute("SELECT smart_llm(r, 0, 0.95) FROM t WHERE i < 300").fetchall()
        (preview,) = con.preview("SELECT smart_llm(r, 0, 0.95) FROM t")
        assert preview.models[0].paid == 300
        assert preview.models[0].calls == (100, 100, 100)
        assert preview.low == preview.expected == preview.high
        assert preview.high == pytest.approx(preview.reference_spend / 4, rel=0.05)
        done = "SELECT smart_llm(r, 0.1, 0.95) FROM t"
        con.execute(done).fetchall()
        (again,) = con.preview(done)
        assert (again.low, again.expected, again.high, again.seconds) == (0, 0, 0, 0)


def test_earlier_runs_of_a_task_sharpen_what_is_expected_within_the_bounds(tmp_path: Path) -> None:
    models = (
        smartsql.Model(name="big", kind="python", function=big, reference=True, **PRICES),
        smartsql.Model(name="small", kind="python", function=small, **CHEAP),
    )
    settings = smartsql.Settings(store=str(tmp_path / "a.sqlite"), seed=3, models=models)
    with smartsql.connect(config=settings) as con:
        con.execute("CREATE TABLE t AS SELECT 'r ' || i AS r, i FROM range(2000) g(i)")
        (before,) = con.preview("SELECT smart_llm(r) FROM t WHERE i >= 1000")
        con.execute("SELECT smart_llm(r) FROM t WHERE i < 1000").fetchall()
        (after,) = con.preview("SELECT smart_llm(r) FROM t WHERE i >= 1000")
        assert (before.runs, after.runs) == (0, 1)
        assert (after.low, after.high) == (before.low, before.high)
        con.execute("SELECT smart_llm(r) FROM t WHERE i >= 1000").fetchall()
        spent = con.reports[-1].spend_usd
        assert abs(after.expected - spent) < abs(before.expected - spent)
        (other,) = con.preview("SELECT smart_llm(r, 0.2, 0.95) FROM t WHERE i < 500")
        assert other.runs == 0


def recorded(seed: int, *, error: float, price: float, evidence: bool) -> Recording:
    """A table of 400 rows on which one candidate is wrong at random."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 400)
    wrong = rng.random(400) < error
    sure = np.clip(0.9 - 0.5 * wrong + 0.1 * rng.random(400), 0, 1)
    return Recording.of(
        {"big": truth, "small": np.where(wrong, 1 - truth, truth)},
        {"big": rng.uniform(0.5, 1.5, 400), "small": price},
        confidences={"small": sure} if evidence else None,
    )


@pytest.mark.parametrize("delta", [0.05, 0.15])
@pytest.mark.parametrize("price", [0.03, 0.4])
@pytest.mark.parametrize("error", [0.0, 0.05, 0.3])
def test_the_spend_of_recorded_runs_lies_between_the_bounds(
    error: float, price: float, delta: float
) -> None:
    inside = []
    for seed in range(3):
        recording = recorded(seed, error=error, price=price, evidence=bool(seed % 2))
        requirement = Requirement(delta, 0.95)
        problem = recording.problem(requirement, seed)
        prices = {model.name: model.expected_cost for model in problem.callable}
        low, expected, high = (case.cost(prices) for case in reckon(problem).cases)
        assert low <= expected <= high <= MOST * recording.reference_spend_usd * (1 + 1e-9)
        spent = measure(recording, Case("certified", requirement, seed))["spend_usd"]
        assert isinstance(spent, float)
        inside.append(low <= spent <= high)
    assert all(inside)


def test_where_the_reference_answers_all_the_bounds_are_its_price() -> None:
    recording = recorded(0, error=0.1, price=0.1, evidence=False)
    problem = recording.problem(Requirement(0.0, 0.95), 0)
    found = reckon(problem)
    assert all(case.by_model == {"big": 400.0} for case in found.cases)
