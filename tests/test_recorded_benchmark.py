"""The benchmark over recorded answers, on a table of its own: what it runs, prints and sums up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from benchmarks.recorded import LINES, READ_IN_ORDER, Cell, Tally, main, paired, recording, wanted
from smartsql.replay.strategies import STRATEGIES

TABLE = "triviaqa"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A small table in the place of a real one; the last rows of the file are the hard ones."""
    rng = np.random.default_rng(0)
    lines = []
    for row in range(150):
        wrong = {"gpt-4o": False, "gpt-4o-mini": row > 110, "llama": bool(rng.random() < 0.5)}
        for model, cost in (("gpt-4o", 1.0), ("gpt-4o-mini", 0.05), ("llama", 0.04), ("dear", 1.2)):
            line = {"row_id": row, "input": f"text {row}", "model": model, "cost_usd": cost}
            line |= {"output": "no" if wrong.get(model) else "yes", "confidence": rng.random()}
            lines.append(line)
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / f"{TABLE}.parquet")
    return tmp_path


def invoke(directory: Path, *options: object) -> Result:
    arguments = [str(directory), "--tables", TABLE, *(str(option) for option in options)]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_dear_candidates_are_left_out_and_second_calls_are_charged(directory: Path) -> None:
    whole = recording(directory, TABLE)
    assert whole.models == ("gpt-4o", "llama", "gpt-4o-mini")
    assert whole.mean_costs["llama verification"] == pytest.approx(0.04)
    assert paired(whole, TABLE).models == ("gpt-4o", "gpt-4o-mini")


def test_rows_lines_and_summary_are_printed(directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    strategies = ("--strategy", "reference,bargain,automix-pomdp,reference")
    shown = invoke(directory, *strategies, "--delta", "0.1,0.3", "--seeds", 2, "--out", out)
    rows, summary = shown.stdout.split("\n\n")
    header, first, second = rows.splitlines()
    assert header.split()[:5] == ["table", "delta", "reference", "bargain", "automix-pomdp"]
    assert first.split()[:5] == [TABLE, "0.1", "1.000", "±0.000", "100.0%"]
    line = LINES[TABLE, 0.1]
    known = [line.keeper, line.oracle, line.target, line.stretch]
    assert first.split()[-4:] == [f"{x:.3f}" for x in known]
    assert len(second.split()) == 2 + 3 * 3  # nothing is known of a delta of 0.3
    ratio = 1.0 / line.target
    assert summary.splitlines()[0] == (
        f"reference: {ratio:.3f} of the target on average; at or under it in 0 of 1 cells, at or "
        f"under the keeper in 0, above 1.02 in 0; broken at most 0.0% ±0.0% ({TABLE} 0.1), "
        f"in 0 cells in more than 5% of the runs"
    )
    runs = [json.loads(text) for text in out.read_text().splitlines()]
    assert len(runs) == 3 * 2 * 2
    assert {run["order"] for run in runs} == {"random"}
    # the pair is fixed beforehand
    assert all("llama" not in run["calls"] for run in runs if run["strategy"] == "bargain")


def test_pairs_are_chosen_and_seeds_begin_where_they_are_told_to(
    directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs.jsonl"
    options = ("--strategy", "bargain", "--choose-pairs", "--first-seed", 7, "--seeds", 2)
    invoke(directory, *options, "--delta", "0.1", "--out", out)
    runs = [json.loads(text) for text in out.read_text().splitlines()]
    assert [run["seed"] for run in runs] == [7, 8]
    assert all(run["calls"]["llama"] > 0 for run in runs)


def test_stored_order_is_for_those_that_trust_it_and_runs_once(
    directory: Path, tmp_path: Path
) -> None:
    cases = wanted(0.1, ["smart-model-mix", "bargain"], range(3), stored=True)
    assert [(c.strategy, c.seed, c.stored_order) for c in cases] == [
        ("smart-model-mix", 0, True),
        ("bargain", 0, False),
        ("bargain", 1, False),
        ("bargain", 2, False),
    ]
    out = tmp_path / "runs.jsonl"
    options = ("--strategy", "threshold", "--delta", "0.1", "--seeds", 4, "--out", out)
    invoke(directory, *options, "--order", "stored")
    (stored,) = (json.loads(text) for text in out.read_text().splitlines())
    assert stored["order"] == "stored"
    # no error is among the first rows of the file, so nearly all of the 39 are let through
    assert stored["agreement"] < 1.0 - 35 / 150
    assert stored["kept_promise"] is False


def test_every_strategy_that_learns_from_the_first_rows_is_run_in_stored_order() -> None:
    trusting = {name for name in STRATEGIES if name.startswith(READ_IN_ORDER)}
    drawing = {"certified", "certified-blind", "reference", "bargain", "clairvoyant"}
    drawing |= {name for name in STRATEGIES if name.startswith("oracle-")}
    assert trusting | drawing == set(STRATEGIES)
    assert not trusting & drawing


def test_the_tally_compares_with_lines_and_prototype() -> None:
    low, high = LINES["mmlu", 0.1], LINES["mmlu", 0.02]
    tally = Tally(
        [
            Cell("mmlu", 0.1, low.target * 0.9, 0.01, 0.02, 0.01),
            Cell("mmlu", 0.02, 1.05, 0.01, 0.08, 0.02),
            Cell("mmlu", 0.3, 0.1, 0.01, 0.5, 0.1),
        ]
    )
    ratio = (0.9 + 1.05 / high.target) / 2
    to_prototype = (low.target * 0.9 / low.prototype + 1.05 / high.prototype) / 2
    assert tally.text(is_ours=True) == (
        f"{ratio:.3f} of the target on average; at or under it in 1 of 2 cells, at or under the "
        f"keeper in 1, above 1.02 in 1; broken at most 8.0% ±2.0% (mmlu 0.02), in 1 "
        f"cells in more than 5% of the runs; "
        f"{to_prototype:.3f} of the prototype on average, more than 2 % dearer in 1"
    )
    assert Tally([]).text(is_ours=False) == "no cell with a line"


def test_a_cells_figures_are_means_with_their_errors() -> None:
    results: list[dict[str, object]] = [
        {"cost_ratio": 0.4, "kept_promise": True},
        {"cost_ratio": 0.6, "kept_promise": False},
    ]
    cell = Cell.of("mmlu", 0.1, results)
    assert (cell.cost, cell.broken) == (0.5, 0.5)
    assert cell.error == pytest.approx(0.1)
    assert cell.doubt == pytest.approx(0.5 / np.sqrt(2))
    assert str(cell) == "0.500 ±0.100  50.0%"
    assert str(Cell.of("mmlu", 0.1, results[:1])) == "0.400        100.0%"
