"""Recordings, replays and the command: what is read, charged, written and refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from smartsql.cli.replay import replay as command
from smartsql.errors import ParameterError
from smartsql.policies import Policy, Steps
from smartsql.population import Population, digest
from smartsql.profile import Problem, Profile
from smartsql.replay.parquet import load, split_names
from smartsql.replay.recording import Recording, RecordingError
from smartsql.replay.runs import Case, measure, replay, replay_recording, summary
from smartsql.replay.strategies import STRATEGIES, SUMMARIES, strategy
from smartsql.types import FAILED, Ask, Plan, Requirement

FIELDS = [
    *("strategy", "delta", "gamma", "seed", "rows"),
    *("spend_usd", "reference_spend_usd", "cost_ratio", "agreement", "kept_promise"),
    *("reference_calls", "calls", "pilot_rows", "audited_rows", "bound", "decide_s"),
]
READY = list(STRATEGIES)


def line(row: object, model: str, output: str | None, cost: float | None = 0.1, **more: Any) -> Any:
    return {
        "row_id": row,
        "input": f"text {row}",
        "model": model,
        "output": output,
        "cost_usd": cost,
        **more,
    }


def write(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(lines)), path)
    return path


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """300 rows, a reference, a good cheap model with confidences and a bad one."""
    random = np.random.default_rng(11)
    lines = []
    for row in range(300):
        truth = random.choice(["good", "bad"])
        wrong = "bad" if truth == "good" else "good"
        fair = truth if random.random() < 0.93 else wrong
        lines += [
            line(row, "strong", truth, 1.0 + row / 1000),
            line(row, "fair", fair, 0.1, confidence=float(random.random())),
            line(row, "weak", truth if random.random() < 0.5 else wrong, 0.01),
        ]
    return write(tmp_path / "reviews.parquet", lines)


def without_time(results: Sequence[Mapping[str, object]]) -> str:
    return "\n".join(json.dumps({k: v for k, v in r.items() if k != "decide_s"}) for r in results)


class Scripted:
    """Asks what it is told and assigns what it is told."""

    def __init__(self, asks: list[Ask], assigned: Sequence[int], escalates: bool = False) -> None:
        self.asks, self.assigned, self.escalates = asks, assigned, escalates

    @property
    def name(self) -> str:
        return "scripted"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        yield self.asks
        yield self.asks  # asked again, which costs nothing
        return Plan(np.array(self.assigned), 0.5, 2, 3, escalates_failures=self.escalates)


def scripted(
    monkeypatch: pytest.MonkeyPatch, recording: Recording, policy: Policy, delta: float
) -> dict[str, object]:
    monkeypatch.setitem(STRATEGIES, "scripted", lambda recording: policy)
    return measure(recording, Case("scripted", Requirement(delta, 0.95), 4))


# --- what is read -------------------------------------------------------------------------------


def test_rows_models_answers_and_prices_are_those_of_the_file(tmp_path: Path) -> None:
    lines = [
        line("y", "cheap", "A", 0.1, price_in_per_mtok=1.0),
        line("x", "cheap", None, 0.3, price_in_per_mtok=3.0),
        line("x", "ref", "B", 1.0, price_in_per_mtok=8.0),
        line("y", "ref", "A", 2.0, price_in_per_mtok=8.0),
        line("x", "dear", "B", 5.0, price_in_per_mtok=9.0),
    ]
    recording = load(write(tmp_path / "r.parquet", lines), "ref")
    assert recording.models == ("ref", "cheap", "dear")
    assert recording.n_rows == 2
    # the file has "y" first
    assert recording.agrees("cheap").tolist() == [True, False]
    assert recording.agrees("dear").tolist() == [False, True]
    assert recording.codes["cheap"][1] == recording.codes["dear"][0] == FAILED
    assert recording.costs["dear"].tolist() == [5.0, 5.0]
    assert recording.prompt_prices == {"ref": 8.0, "cheap": 2.0, "dear": 9.0}
    assert recording.reference_spend_usd == 3.0


def test_unique_inputs_have_the_order_that_sql_gives_them(tmp_path: Path) -> None:
    texts = [f"review {i}" for i in range(50)]
    lines = [line(i, "ref", "x") | {"input": text} for i, text in enumerate(texts)]
    recording = load(write(tmp_path / "r.parquet", lines), "ref")
    digests = [digest(text) for text in reversed(texts)]
    in_sql = Population.shuffled(digests, np.ones(50, dtype=np.int64), seed=9)
    replayed = recording.problem(Requirement(0.1, 0.95), seed=9).population
    assert [texts[i] for i in replayed.order] == [texts[49 - i] for i in in_sql.order]


def test_repeated_inputs_are_rows_of_their_own_in_an_order_free_of_storage(
    tmp_path: Path,
) -> None:
    lines = [line(i, "ref", "x") | {"input": "same" if i % 2 else f"only {i}"} for i in range(40)]
    forward = load(write(tmp_path / "a.parquet", lines), "ref")
    backward = load(write(tmp_path / "b.parquet", lines[::-1]), "ref")
    assert len({tuple(pair) for pair in forward.digests.tolist()}) == 40
    order = forward.problem(Requirement(0.1, 0.95), seed=2).population.order
    reverse = backward.problem(Requirement(0.1, 0.95), seed=2).population.order
    assert order.tolist() == (39 - reverse).tolist()
    assert order.tolist() != list(range(40))


def test_calls_without_a_line_or_an_output_fail_at_the_mean_cost(tmp_path: Path) -> None:
    lines = [line(i, "ref", "x", 1.0) for i in range(4)]
    lines += [line(0, "m", "x", 0.1), line(1, "m", None, None), line(2, "m", "x", 0.3)]
    recording = load(write(tmp_path / "r.parquet", lines), "ref")
    assert recording.costs["m"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.2])
    assert recording.codes["m"].tolist() == [0, FAILED, 0, FAILED]
    assert recording.mean_costs["m"] == pytest.approx(0.2)


def test_one_data_set_of_several_is_kept(tmp_path: Path) -> None:
    lines = [line(i, "ref", "x", dataset=name) for name in ("a", "b") for i in range(3)]
    path = write(tmp_path / "r.parquet", [*lines, line(3, "ref", "x", dataset="b")])
    assert load(path, "ref", dataset="b").n_rows == 4
    with pytest.raises(RecordingError, match=r"more than one line for row 0.*--dataset"):
        load(path, "ref")
    with pytest.raises(ParameterError, match=r"'c' has no rows in the recording. It has: a, b"):
        load(path, "ref", dataset="c")


def test_listed_models_keep_their_order_and_others_stay_out(reviews: Path) -> None:
    assert load(reviews, "strong").models == ("strong", "weak", "fair")
    assert load(reviews, "strong", models=["fair,weak"]).models == ("strong", "fair", "weak")
    assert load(reviews, "strong", models=["fair"]).models == ("strong", "fair")


def test_names_may_hold_commas() -> None:
    known = ["gpt (10 shots, small)", "gpt", "small"]
    assert split_names(["gpt (10 shots, small),gpt"], known) == ["gpt (10 shots, small)", "gpt"]
    assert split_names(["gpt, small"], known) == ["gpt", "small"]
    with pytest.raises(ParameterError, match=r"'gtp' has no rows.*Did you mean 'gpt'"):
        split_names(["gtp"], known)
    with pytest.raises(ParameterError, match="named twice"):
        split_names(["gpt,gpt"], known)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"row_id": 1, "model": "ref"}], "no column input, output, cost_usd; .* It has: row_id"),
        ([line(1, "ref", "x", None)], "'ref' has no cost_usd in any line"),
        ([line(1, "ref", "x", -1.0)], "cost_usd is -1.0 for model 'ref', row 1"),
        ([line(1, "ref", "x"), line(1, "ref", "y")], "'ref' has more than one line for row 1"),
        ([line(1, "ref", "x") | {"input": None}, line(2, "ref", "x")], "row 1 has no input"),
        (
            [line(1, "ref", "x"), line(1, "m", "x") | {"input": "other"}],
            "row 1 has different values of input",
        ),
        ([line(1, "ref", "x", weight=0)], "weight of row 1 is 0.0; it must be a whole number"),
        ([line(1, "ref", "x", weight="many")], "column weight holds string"),
        ([line(1, "ref", "x"), line(None, "ref", "x")], "has 1 lines without row_id"),
        ([line(1, "ref", "x") | {"cost_usd": "free"}], "column cost_usd holds string"),
        ([line(1, "ref", "x") | {"cost_usd": "0.25"}], "column cost_usd holds string, not numbers"),
        ([line(1, "ref", "x") | {"cost_usd": True}], "column cost_usd holds bool, not numbers"),
        ([line(1, "ref", "x", confidence=1.5)], "confidence is 1.5 for model 'ref', row 1"),
        ([line(1, "ref", "x", confidence=-0.1)], "confidence is -0.1 for model 'ref', row 1"),
        ([line(1, "ref", "x", confidence=float("inf"))], "confidence is inf for model 'ref'"),
    ],
)
def test_files_that_contradict_themselves_are_refused(
    tmp_path: Path, lines: list[Any], message: str
) -> None:
    path = write(tmp_path / "r.parquet", lines)
    with pytest.raises(RecordingError, match=message):
        load(path, "ref")


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.parquet"
    text.write_text("not a table, not even nearly one")
    with pytest.raises(RecordingError, match=r"cannot read .*notes.parquet as a Parquet file"):
        load(text, "ref")
    with pytest.raises(RecordingError, match="cannot read"):
        load(tmp_path / "missing.parquet", "ref")
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.Table.from_pylist([line(1, "ref", "x")]).slice(0, 0), empty)
    with pytest.raises(RecordingError, match="has no lines"):
        load(empty, "ref")


# --- what is charged ----------------------------------------------------------------------------


def test_every_call_is_charged_once_for_each_model_and_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = {"r": [0, 1, 2, FAILED], "m": [0, 1, FAILED, FAILED]}
    recording = Recording.of(codes, {"r": [1.0, 2.0, 3.0, 4.0], "m": 0.5})
    asks = [Ask("r", np.array([0, 1])), Ask("m", np.array([1, 2, 2]))]
    result = scripted(monkeypatch, recording, Scripted(asks, [0, 1, 1, 0]), 0.25)
    assert result["calls"] == {"r": 3, "m": 2}
    assert result["reference_calls"] == 3
    assert result["spend_usd"] == 1.0 + 2.0 + 4.0 + 2 * 0.5
    assert result["reference_spend_usd"] == 10.0
    assert result["cost_ratio"] == 0.8
    # row 2 failed and stays; row 3 is the reference's, though that failed too
    assert result["agreement"] == 0.75
    assert result["kept_promise"] is True
    assert (result["pilot_rows"], result["audited_rows"], result["bound"]) == (2, 3, 0.5)


def test_promise_counts_rows_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording.of({"r": [0, 0], "m": [0, 1]}, {"r": 1.0, "m": 0.1}, weights=[7, 3])
    for delta, kept in ((0.3, True), (0.29, False)):
        result = scripted(monkeypatch, recording, Scripted([], [1, 1]), delta)
        assert result["rows"] == 10
        assert result["agreement"] == 0.7
        assert result["kept_promise"] is kept
        assert result["calls"] == {"r": 0, "m": 2}
        assert result["reference_spend_usd"] == 2.0


def test_failures_escalate_where_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording.of({"r": [0, 0], "m": [0, FAILED]}, {"r": 1.0, "m": 0.1})
    result = scripted(monkeypatch, recording, Scripted([], [1, 1], escalates=True), 0.1)
    assert result["calls"] == {"r": 1, "m": 2}
    assert result["agreement"] == 1.0


def test_confidences_are_seen_only_where_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording.of(
        {"r": [0, 0, 0], "m": [0, 0, 0]},
        {"r": 1.0, "m": 0.1},
        confidences={"m": [0.5, np.nan, 0.7]},
    )
    seen: list[Any] = []

    class Curious(Scripted):
        def steps(self, problem: Problem, profile: Profile) -> Steps:
            yield [Ask("m", np.array([0, 1]))]
            seen.extend(profile.confidences("m").tolist())
            return Plan(np.zeros(3, dtype=np.int64), 0.0)

    scripted(monkeypatch, recording, Curious([], []), 0.1)
    assert seen[0] == 0.5
    assert np.isnan(seen[1:]).all()


def test_a_recording_cannot_be_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording.of({"r": [0], "m": [0]}, {"r": 1.0, "m": 0.1})
    policy = Scripted([Ask("m", np.array([0]), fit=True)], [0])
    with pytest.raises(ParameterError, match="'m' cannot be trained"):
        scripted(monkeypatch, recording, policy, 0.1)


# --- what is returned ---------------------------------------------------------------------------


def test_results_have_the_agreed_fields_in_order(reviews: Path) -> None:
    results = list(replay(reviews, "strong", deltas=[0.05, 0.1], strategies=READY, seeds=2))
    assert all(list(result) == FIELDS for result in results)
    assert [(r["strategy"], r["delta"], r["seed"]) for r in results] == [
        (name, delta, seed) for name in READY for delta in (0.05, 0.1) for seed in (0, 1)
    ]
    assert all(r["rows"] == 300 for r in results)


def test_what_is_asked_for_twice_runs_once(reviews: Path) -> None:
    options: dict[str, Any] = {"deltas": [0.1, 0.05, 0.10], "strategies": ["reference"] * 2}
    results = list(replay(reviews, "strong", seeds=1, **options))
    assert [(r["strategy"], r["delta"]) for r in results] == [
        ("reference", 0.1),
        ("reference", 0.05),
    ]
    asked = ("--delta", "0.1,0.10", "--strategy", "reference,reference", "--seeds", 2)
    lines = invoke(reviews, "--reference", "strong", *asked).stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["2"]


def test_costs_may_be_integers_decimals_or_small_floats(tmp_path: Path) -> None:
    for costs in ([1, 3], [Decimal("1.00"), Decimal("3.00")], np.array([1, 3], np.float32)):
        lines = [line(i, "ref", "x") for i in range(2)]
        table = pa.Table.from_pylist(lines).drop(["cost_usd"])
        pq.write_table(table.append_column("cost_usd", pa.array(costs)), tmp_path / "r.parquet")
        assert load(tmp_path / "r.parquet", "ref").costs["ref"].tolist() == [1.0, 3.0]


def test_two_replays_are_equal_but_for_the_time(reviews: Path) -> None:
    options: dict[str, Any] = {"deltas": [0.05, 0.15], "strategies": READY, "seeds": 3}
    first = without_time(list(replay(reviews, "strong", **options)))
    assert first == without_time(list(replay(reviews, "strong", **options)))
    later = without_time(list(replay(reviews, "strong", **{**options, "first_seed": 3})))
    assert later != first


def test_results_do_not_depend_on_the_number_of_processes(reviews: Path) -> None:
    options: dict[str, Any] = {"strategies": READY, "seeds": 3}
    alone = without_time(list(replay(reviews, "strong", **options)))
    assert without_time(list(replay(reviews, "strong", jobs=2, **options))) == alone


def test_results_do_not_depend_on_the_order_of_the_lines(reviews: Path, tmp_path: Path) -> None:
    table = pq.read_table(reviews)
    mixed = tmp_path / "mixed.parquet"
    pq.write_table(table.take(np.random.default_rng(0).permutation(table.num_rows)), mixed)
    options: dict[str, Any] = {"strategies": READY, "seeds": 2}
    first, second = (list(replay(path, "strong", **options)) for path in (reviews, mixed))
    assert without_time(first) == without_time(second)


def test_reference_only_costs_the_whole_and_keeps_every_promise(reviews: Path) -> None:
    (result,) = replay(reviews, "strong", deltas=[0.0], strategies=["reference"], seeds=1)
    assert result["cost_ratio"] == 1.0
    assert result["agreement"] == 1.0
    assert result["kept_promise"] is True
    assert result["calls"] == {"strong": 300, "weak": 0, "fair": 0}


def test_table_order_strategies_see_the_order_of_the_seed(reviews: Path) -> None:
    recording = load(reviews, "strong")
    stored = Case("smart-profile-all", Requirement(0.1, 0.95), 0, stored_order=True)
    shuffled = Case("smart-profile-all", Requirement(0.1, 0.95), 0)
    firsts = []
    for case in (stored, shuffled):
        problem = recording.problem(case.requirement, case.seed, stored_order=case.stored_order)
        firsts.append(problem.population.order[:10].tolist())
    assert firsts[0] == list(range(10)) != firsts[1]
    assert measure(recording, stored)["spend_usd"] != measure(recording, shuffled)["spend_usd"]


def test_summary_is_by_strategy_and_delta() -> None:
    recording = Recording.of({"r": np.ones(20), "m": np.ones(20)}, {"r": 1.0, "m": 0.25})
    results = replay_recording(
        recording,
        deltas=[0.05, 0.1],
        gamma=0.95,
        strategies=["reference", "oracle-single"],
        seeds=3,
    )
    assert summary(results).splitlines() == [
        "strategy        delta  cost ratio  promise kept   runs",
        "reference        0.05      1.0000         1.000      3",
        "reference         0.1      1.0000         1.000      3",
        "oracle-single    0.05      0.2500         1.000      3",
        "oracle-single     0.1      0.2500         1.000      3",
    ]


def test_certified_is_the_default_everywhere() -> None:
    assert signature(replay).parameters["strategies"].default == ("certified",)
    (option,) = (p for p in command.params if p.name == "strategy")
    assert option.default == next(iter(STRATEGIES)) == "certified"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deltas": [1.0]}, "delta is 1.0"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"seeds": 0}, "seeds is 0"),
        ({"first_seed": -1}, "first_seed is -1"),
        ({"jobs": 0}, "jobs is 0"),
        ({"strategies": ["smart-mix"]}, "no strategy 'smart-mix'. Did you mean 'smart-model-mix'"),
        ({"strategies": ["data"]}, "no strategy 'data'. Did you mean 'data-shunt'"),
        ({"models": ["wek"]}, "'wek' has no rows in the recording. Did you mean 'weak'"),
        ({"dataset": "x"}, "no column dataset"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_run(
    reviews: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        replay(reviews, "strong", **{"strategies": ["reference"], **change})


def test_a_reference_without_rows_is_refused(reviews: Path) -> None:
    with pytest.raises(ParameterError, match=r"'string' has no rows.*Did you mean 'strong'"):
        replay(reviews, "string")


def test_a_reference_that_costs_nothing_is_refused() -> None:
    recording = Recording.of({"r": [0], "m": [0]}, {"r": 0.0, "m": 0.0})
    with pytest.raises(ParameterError, match="'r' costs nothing"):
        replay_recording(recording, deltas=[0.1], gamma=0.9, strategies=["reference"], seeds=1)


def test_every_listed_strategy_runs_under_its_own_name(reviews: Path) -> None:
    recording = load(reviews, "strong")
    for name in READY:
        assert strategy(name, recording).name == name


# --- the command --------------------------------------------------------------------------------


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_command_writes_lines_and_prints_the_table(reviews: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    options = ("--delta", "0.05,0.1", "--strategy", "reference, oracle-mix", "--seeds", 2)
    result = invoke(reviews, "--reference", "strong", *options, "--first-seed", 5, "--out", out)
    assert result.exit_code == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(r["strategy"], r["delta"], r["seed"]) for r in lines] == [
        (name, delta, seed)
        for name in ("reference", "oracle-mix")
        for delta in (0.05, 0.1)
        for seed in (5, 6)
    ]
    assert result.stdout == summary(lines) + "\n"
    assert result.stderr == ""
    assert invoke(reviews, "--reference", "strong", *options, "--first-seed", 5).stdout == (
        result.stdout
    )


def test_help_lists_every_strategy_with_what_it_is() -> None:
    assert list(SUMMARIES) == list(STRATEGIES)
    shown = invoke("--help").stdout
    for name in STRATEGIES:
        assert f"\n  {name}  " in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delta", "0.1,x"], "not a list of numbers"),
        (["--delta", "1"], "delta is 1.0"),
        (["--gamma", "0"], "gamma is 0.0"),
        (["--seeds", "0"], "--seeds"),
        (["--strategy", "certain"], "no strategy 'certain'. Did you mean 'certified'"),
        (["--strategy", "automix"], "no strategy 'automix'"),
        (["--reference", "weakest"], "Did you mean 'weak'"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_two(reviews: Path, options: list[str], message: str) -> None:
    result = invoke(reviews, "--reference", "strong", "--strategy", "reference", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_failures_end_with_one(reviews: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.parquet"
    text.write_text("not a table, not even nearly one")
    broken = invoke(text, "--reference", "strong")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "cannot read" in broken.stderr
    nowhere = invoke(
        reviews, "--reference", "strong", "--strategy", "reference", "--out", tmp_path / "no" / "x"
    )
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert "cannot write" in nowhere.stderr
