"""Incremental benefit per cost and self-agreement: arithmetic, guards, and what is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from smartsql.cli.replay import replay as command
from smartsql.errors import ParameterError
from smartsql.executor import run
from smartsql.policies.cascades.shunt import DataShunt
from smartsql.policies.reference import Reference
from smartsql.replay.ibc import Benefit, IbcTable, benefit, increments
from smartsql.replay.parquet import load
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.replay.runs import Case, measure_benefit
from smartsql.replay.self_agreement import self_agreement, wilson
from smartsql.types import FAILED, Requirement


def shunted() -> Recording:
    """Ten rows; the small model is wrong on the three that it is least sure of."""
    return Recording.of(
        {"large": [0] * 10, "small": [0] * 7 + [1] * 3},
        {"large": 1.0, "small": 0.1},
        confidences={"small": np.linspace(1.0, 0.1, 10)},
        weights=[2] * 10,
    )


def benefit_of(recording: Recording, least: float) -> Benefit | None:
    problem = recording.problem(Requirement(0.2, 0.95), 0)
    outcome = run(DataShunt(least), problem, RecordedSource(recording))
    spent = sum(float(outcome.profile.costs(m.name).sum()) for m in problem.models)
    return benefit(recording, outcome, spent / recording.reference_spend_usd)


def test_a_cascade_is_compared_with_its_small_model_and_the_reference() -> None:
    found = benefit_of(shunted(), 0.25)
    assert found is not None
    assert found.small == "small"
    # two of the three errors go to the reference
    assert found.method == pytest.approx((0.9, 0.3))
    assert found.small_only == pytest.approx((0.7, 0.1))
    assert found.reference_only == (1.0, 1.0)
    mean = increments([found])
    assert mean.ibc == pytest.approx(0.2 / 0.2)
    assert mean.base == pytest.approx(0.3 / 0.9)
    assert mean.lift_percent == pytest.approx(200.0)


def test_a_judges_verdicts_take_the_place_of_agreement() -> None:
    verdicts = {"large": np.ones(10), "small": np.full(10, 0.5)}
    verdicts["large"][0] = 0.0
    found = benefit_of(replace(shunted(), correct=verdicts), 0.25)
    assert found is not None
    assert found.method[0] == pytest.approx(0.8 * 0.5 + 0.2)
    assert found.small_only[0] == pytest.approx(0.5)
    assert found.reference_only[0] == pytest.approx(0.9)


def test_ratios_that_mean_nothing_are_not_given() -> None:
    base = Benefit("small", (0.8, 0.5), (0.7, 0.1), (1.0, 1.0))
    nothing_spent = increments([replace(base, method=(0.7, 0.1))])
    assert (nothing_spent.ibc, nothing_spent.lift_percent) == (None, None)
    as_dear = increments([replace(base, small_only=(0.7, 1.0))])
    assert (as_dear.base, as_dear.lift_percent) == (None, None)
    as_good = increments([replace(base, small_only=(1.0, 0.1))])
    assert (as_good.base, as_good.lift_percent) == (None, None)


def test_runs_are_averaged_before_they_are_divided() -> None:
    near = Benefit("small", (0.7, 0.1), (0.7, 0.1), (1.0, 1.0))
    far = Benefit("small", (0.9, 0.5), (0.7, 0.1), (1.0, 1.0))
    assert increments([near, far]).ibc == pytest.approx(0.2 / 0.4)


def test_a_run_that_asks_no_candidate_has_no_small_model() -> None:
    recording = shunted()
    problem = recording.problem(Requirement(0.2, 0.95), 0)
    outcome = run(Reference(), problem, RecordedSource(recording))
    assert benefit(recording, outcome, 1.0) is None
    table = IbcTable(judged=False)
    table.add("reference", 0.1, None)
    assert table.text().splitlines()[-1].split() == ["reference", "0.1", "-", "-", "-", "0", "-"]


def test_the_cost_of_verifications_is_the_methods_not_the_small_models() -> None:
    rows = 200
    rng = np.random.default_rng(0)
    recording = Recording.of(
        {"large": np.zeros(rows), "small": (rng.random(rows) < 0.05).astype(int)},
        {"large": 1.0, "small": 0.1},
        confidences={"small": rng.random(rows)},
    ).verified({"small": np.full(rows, 0.05)})
    run = measure_benefit(recording, Case("automix-threshold", Requirement(0.2, 0.95), 0))
    assert run.benefit is not None
    assert run.benefit.small == "small"
    assert run.benefit.small_only[1] == pytest.approx(0.1)
    assert run.benefit.method[1] == run.result["cost_ratio"]


# --- self-agreement -----------------------------------------------------------------------------


def test_repeats_are_counted_by_rows_and_failures_are_none() -> None:
    recording = Recording.of(
        {"large": [0, 1, 2, FAILED], "again": [0, 1, 3, FAILED]},
        {"large": 1.0, "again": 1.0},
        weights=[5, 1, 3, 1],
    )
    found = self_agreement(recording, "again")
    assert (found.rows, found.repeated, found.failed) == (10, 6, 1)
    assert found.share == 0.6
    # four prompts, unequally heavy, tell as much as 100/36 equal ones
    assert (found.low, found.high) == wilson(0.6, 100 / 36)
    assert "on 6 of 10 rows, 60.0%" in found.text()
    assert "1 row(s) without an answer" in found.text()
    with pytest.raises(ParameterError, match="'large' is the reference itself"):
        self_agreement(recording, "large")


def test_intervals_hold_the_rate_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.9, 0.98):
        hits = rng.binomial(400, rate, 3000)
        ends = np.array([wilson(h / 400, 400) for h in hits])
        inside = ((ends[:, 0] <= rate) & (rate <= ends[:, 1])).mean()
        assert 0.93 <= inside <= 0.975
    assert wilson(1.0, 50)[1] == pytest.approx(1.0)
    assert wilson(0.0, 50)[0] == pytest.approx(0.0)
    assert 0.9 < wilson(1.0, 50)[0] < 1.0


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A reference, a second run of it, and a small model, with verdicts of a judge."""
    rng = np.random.default_rng(0)
    lines = []
    for row in range(200):
        answers = {"large": "x", "again": "x" if row % 10 else "y"}
        answers["small, mini"] = "x" if rng.random() < 0.85 else "y"
        for model, output in answers.items():
            cost = 0.05 if model.startswith("small") else 1.0 if model == "large" else 0.9
            line = {"row_id": row, "input": f"text {row}", "model": model, "output": output}
            sure = float(rng.random())
            line |= {"cost_usd": cost, "confidence": sure, "correct": output == "x"}
            lines.append(line)
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "runs.parquet")
    return tmp_path / "runs.parquet"


def invoke(path: Path, *options: object) -> Result:
    arguments = [str(x) for x in (path, "--reference", "large", "--seeds", 2, *options)]
    return CliRunner().invoke(command, arguments)


def test_automix_prints_increments_after_the_table(runs: Path, tmp_path: Path) -> None:
    options = ("--strategy", "reference,automix-threshold,automix-pomdp", "--delta", "0.05,0.2")
    shown = invoke(runs, *options)
    assert shown.exit_code == 0
    table, increments = shown.stdout.split("\n\n")
    assert len(table.splitlines()) == 1 + 6
    lines = increments.splitlines()
    assert lines[0].startswith("Incremental benefit per cost (benefit: accuracy by the column corr")
    assert [line.split()[0] for line in lines[2:]] == [
        name for name in ("reference", "automix-threshold", "automix-pomdp") for _ in range(2)
    ]
    assert lines[-1].endswith("small, mini")
    assert invoke(runs, *options).stdout == shown.stdout
    without = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(runs).drop(["correct"]), without)
    assert "benefit: agreement, for want of gold" in invoke(without, *options).stdout
    assert "Incremental" not in invoke(runs, "--strategy", "bargain").stdout


def test_the_second_run_is_compared_and_is_no_candidate(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--strategy", "reference", "--self-agreement", "again", "--out", out)
    shown = invoke(runs, *options)
    assert shown.exit_code == 0
    assert "large repeats its own answer on 180 of 200 rows, 90.0%" in shown.stdout
    assert '"again"' not in out.read_text()
    named = invoke(runs, *options, "--models", "again,small, mini")
    assert "180 of 200 rows" in named.stdout
    assert '"again": 0' in out.read_text()


def test_an_unknown_second_run_is_wrong_usage(runs: Path) -> None:
    for name, message in (("agian", "Did you mean 'again'"), ("large", "the reference itself")):
        shown = invoke(runs, "--strategy", "reference", "--self-agreement", name)
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert message in shown.stderr


def test_verdicts_are_read_as_numbers_and_missing_ones_are_wrong(tmp_path: Path) -> None:
    def line(row: int, model: str, verdict: object) -> dict[str, object]:
        start = {"row_id": row, "input": f"{row}", "model": model, "output": "x", "cost_usd": 1.0}
        return start | {"correct": verdict}

    path = tmp_path / "r.parquet"
    lines = [line(0, "r", True), line(1, "r", None), line(0, "m", False), line(1, "m", True)]
    pq.write_table(pa.Table.from_pylist(lines), path)
    correct = load(path, "r").correct
    assert correct is not None
    assert {m: c.tolist() for m, c in correct.items()} == {"r": [1.0, 0.0], "m": [0.0, 1.0]}
    scores = [line(0, "r", 0.75), line(0, "m", None)]
    pq.write_table(pa.Table.from_pylist(scores), path)
    assert load(path, "r").correct is None  # no verdict on m at all
    for other in (1.5, "yes"):  # no verdicts: the recording is as good as without the column
        pq.write_table(pa.Table.from_pylist([line(0, "r", other)]), path)
        assert load(path, "r").correct is None
