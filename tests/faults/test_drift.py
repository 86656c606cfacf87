"""Drift: an endpoint answers with another model under the same name, and the report says so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.asking.drift import LEVEL, SAMPLE, verdict
from smartsql.cli import main
from smartsql.ledger import Ledger
from smartsql.reports.bill import told
from smartsql.reports.report import Report, report_from_dict
from smartsql.reports.verify import verify
from tests.gateway.server import Answer, Call, TestServer
from tests.test_end_to_end import draw, said

OLD, NEW = "big-2026-01-01", "big-2026-09-01"
PRICES = {"big": 10.0, "small": 0.3}
EXACT = "SELECT i, smart_llm('review ' || i, 0.0) AS a FROM range({n}) t(i) ORDER BY i"
CERTIFIED = "SELECT i, smart_llm('review ' || i, 0.1, 0.95) AS a FROM range({n}) t(i) ORDER BY i"


class World:
    """A server whose models may become others, and one ledger."""

    def __init__(self, server: TestServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.store = folder / "answers.sqlite"
        self.ids: dict[str, str] = {}
        self.other: dict[str, int] = {}  # per cent of prompts that a model answers otherwise now
        server.reply = self.reply

    def reply(self, call: Call) -> Answer:
        text = said(call.model, call.prompt)
        if draw(f"other {call.prompt}") % 100 < self.other.get(call.model, 0):
            text = "negative" if text == "positive" else "positive"
        return Answer(text, served_by=self.ids.get(call.model))

    def opened(self, *, alone: bool = False, **settings: Any) -> Any:
        models = [
            smartsql.Model(
                name=name, base_url=self.server.base_url, reference=name == "big",
                input_usd_per_mtok=usd, output_usd_per_mtok=usd,
                parameters={"max_completion_tokens": 8},
            )
            for name, usd in PRICES.items()
            if name == "big" or not alone
        ]  # fmt: skip
        settings = {"store": str(self.store), "seed": 3} | settings
        return smartsql.connect(config=smartsql.Settings(), models=models, **settings)

    def asked(self, sql: str, **settings: Any) -> tuple[Report, list[Any]]:
        """The report of a statement on a connection of its own, and its rows."""
        with self.opened(**settings) as con:
            rows = con.execute(sql).fetchall()
            return con.reports[-1], rows

    def calls(self) -> int:
        return len(self.server.calls)

    def check(self, report: Report) -> None:
        """The report holds, and the ledger has all that was billed, to the cent."""
        store = Ledger(self.store)
        assert [c for c in verify(report.to_dict(), store) if not c.holds] == []
        paid = sum(row[4] for row in store.totals())
        store.close()
        billed = sum(sum(self.server.billed_tokens(m)) * usd / 1e6 for m, usd in PRICES.items())
        assert paid == pytest.approx(billed, abs=1e-12)
        assert report_from_dict(report.to_dict()) == report


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with TestServer() as server:
        yield World(server, tmp_path)


def sentence(report: Report) -> str:
    """What the report says of drift, in all places the same."""
    (found,) = [value for what, value in report.lines() if what == "drift"]
    assert f"note: {found}" in told([report])
    return found


# --- the decision ----------------------------------------------------------------------------


def tail(answers: int, changed: int, drawn: int, found: range) -> Fraction:
    ways = sum(math.comb(changed, x) * math.comb(answers - changed, drawn - x) for x in found)
    return Fraction(ways, math.comb(answers, drawn))


@pytest.mark.parametrize(("answers", "drawn"), [(1, 1), (5, 3), (31, 30), (60, 30)])
def test_bounds_are_those_of_the_exact_tails(answers: int, drawn: int) -> None:
    for changed in range(drawn + 1):
        kept, least, _ = verdict(answers, drawn, drawn - changed, 0.1)
        possible = range(answers + 1)
        most = [k for k in possible if tail(answers, k, drawn, range(changed + 1)) >= LEVEL]
        fewest = [k for k in possible if tail(answers, k, drawn, range(changed, drawn + 1)) > LEVEL]
        assert kept == pytest.approx(1 - max(most) / answers)
        assert least == pytest.approx(min(fewest) / answers)
        assert least <= changed / drawn <= 1 - kept or answers == drawn


@pytest.mark.parametrize(
    ("same", "delta", "is_significant"),
    [(30, 0.0, False), (29, 0.0, True), (28, 0.1, False), (27, 0.1, True), (27, 0.2, False),
     (0, 0.9, True)],
)  # fmt: skip
def test_drift_counts_where_surely_more_than_a_quarter_of_delta_has_changed(
    same: int, delta: float, is_significant: bool
) -> None:
    found = verdict(10_000, SAMPLE, same, delta)
    assert found.is_significant is is_significant
    assert (found.kept_at_least > 0.9) == (same == SAMPLE)


# --- what users see --------------------------------------------------------------------------


def test_without_a_change_a_rerun_asks_nothing_and_says_nothing(world: World) -> None:
    for sql in (EXACT, CERTIFIED):
        first, rows = world.asked(sql.format(n=200))
        done = world.calls()
        again, same = world.asked(sql.format(n=200))
        assert (world.calls(), same) == (done, rows)
        assert first.drift == again.drift == ()
        assert not any("rechecked" in model.name for model in again.models)
        assert "drift" not in dict(again.lines())


def test_answers_of_another_id_are_compared_once_and_told(world: World) -> None:
    world.asked(EXACT.format(n=100))
    world.ids["big"] = NEW
    report, rows = world.asked(EXACT.format(n=110))
    assert world.calls() == 100 + 10 + SAMPLE
    (found,) = report.drift
    assert (found["now"], found["then"], found["answers"]) == (NEW, {OLD: 100}, 100)
    assert (found["asked"], found["same"], found["is_significant"]) == (30, 30, False)
    assert sentence(report) == (
        f"big is {NEW} now, and this rests on 100 answers that it gave as {OLD}. The reference "
        f"repeated 30 of 30 of its cached answers (at least 92 % of all 100, with 95 %)."
    )
    assert f"100 of the reference's answers are those of {OLD}, and it is {NEW} now" in (
        report.bill()
    )
    again = {model.name: model for model in report.models}["big rechecked"]
    assert (again.role, again.calls, again.rows, again.cost_usd > 0) == ("repeat", 30, 0, True)
    assert report.spend_usd == pytest.approx(sum(model.cost_usd for model in report.models))
    world.check(report)
    # once: a rerun finds the comparison in the ledger, and says the same
    rerun, same = world.asked(EXACT.format(n=110))
    assert (world.calls(), same) == (140, rows)
    assert rerun.drift == report.drift
    assert rerun.spend_usd == 0
    world.check(rerun)


def test_what_another_statement_has_seen_is_told_by_a_rerun(world: World) -> None:
    world.asked(EXACT.format(n=100))
    world.ids["big"] = NEW
    world.asked("SELECT smart_llm('something else', 0.0)")
    assert world.calls() == 101
    report, _ = world.asked(EXACT.format(n=100))
    assert world.calls() == 101 + SAMPLE
    assert report.drift[0]["then"] == {OLD: 100}
    world.check(report)


def test_where_it_counts_the_report_says_what_to_do_and_that_works(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.asked(EXACT.format(n=100), alone=True)
    world.ids["big"], world.other["big"] = NEW, 40
    report, rows = world.asked(EXACT.format(n=110), alone=True)
    (found,) = report.drift
    assert found["is_significant"]
    assert 0 < found["same"] < 26
    command = f"smartsql forget big --served-by {OLD}"
    assert f"run `{command}` and the statement again" in sentence(report)
    world.check(report)
    paid = world.calls()
    assert main([*command.split()[1:], "--store", str(world.store)]) == 0
    assert "forgot 100 answers of 'big' by 'big-2026-01-01'" in capsys.readouterr().err
    anew, changed = world.asked(EXACT.format(n=110), alone=True)
    assert world.calls() == paid + 100
    assert anew.drift == ()
    assert rows != changed == [(i, world_says(world, i)) for i in range(110)]
    world.check(anew)
    # what was forgotten was paid, and stays an attempt
    assert main(["forget", "bigger", "--store", str(world.store)]) == 1
    assert "Models with answers in it: big" in capsys.readouterr().err


def world_says(world: World, i: int) -> str | None:
    return world.reply(Call(0, "big", f"review {i}", 0, {}, {})).text


def test_on_demand_the_reference_is_asked_again_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, rows = world.asked(EXACT.format(n=100), revalidate=True)
    assert first.drift == ()  # nothing is of an earlier run
    monkeypatch.setenv("SMARTSQL_REVALIDATE", "true")
    for times in (1, 2):
        report, same = world.asked(EXACT.format(n=100))
        assert (world.calls(), same) == (100 + times * SAMPLE, rows)
        assert sentence(report) == (
            "The reference repeated 30 of 30 of its cached answers (at least 92 % of all 100, "
            "with 95 %)."
        )
        world.check(report)
    # the same id, and other answers
    world.other["big"] = 40
    report, same = world.asked(EXACT.format(n=100))
    assert same == rows
    assert report.drift[0]["is_significant"]
    assert "run `smartsql forget big` and the statement again" in sentence(report)
    world.check(report)
    monkeypatch.delenv("SMARTSQL_REVALIDATE")
    done = world.calls()
    assert world.asked(EXACT.format(n=100))[0].drift == ()
    assert world.calls() == done


def test_a_change_that_is_found_on_demand_is_remembered(world: World) -> None:
    world.asked(EXACT.format(n=100))
    world.ids["big"] = NEW
    report, _ = world.asked(EXACT.format(n=100), revalidate=True)
    assert (report.drift[0]["now"], report.drift[0]["then"]) == (NEW, {OLD: 100})
    world.check(report)
    plain, _ = world.asked(EXACT.format(n=100))
    assert plain.drift[0]["then"] == {OLD: 100}
    world.check(plain)


def test_a_candidate_that_changes_after_its_audit_is_compared_too(
    world: World, tmp_path: Path
) -> None:
    calm, _ = world.asked(CERTIFIED.format(n=600), store=str(tmp_path / "calm.sqlite"))
    asked = {model.name: model.calls for model in calm.models}
    assert calm.assigned_rows > 300
    world.server.reset()

    def turning(call: Call) -> Answer:
        """In the last 100 of its calls, of which none is for the audit, it is another one."""
        before = sum(c.model == "small" for c in world.server.calls[: call.serial])
        if call.model == "small" and before >= turn:
            world.ids["small"], world.other["small"] = "small-2", 60
        else:
            world.ids.clear()
            world.other.clear()
        return world.reply(call)

    turn = asked["small"] - 100
    world.server.reply = turning
    report, _ = world.asked(CERTIFIED.format(n=600))
    assert report.assigned_rows == calm.assigned_rows
    (found,) = report.drift
    assert (found["model"], found["role"], found["now"]) == ("small", "candidate", "small-2")
    assert found["then"] == {"small-2026-01-01": turn}
    assert found["is_significant"]
    assert "small repeated" in sentence(report)
    assert "smartsql forget small --served-by small-2026-01-01" in sentence(report)
    assert "of small's answers are those of small-2026-01-01, and it is small-2 now" in (
        report.promise()
    )
    world.check(report)


def test_the_comparison_is_under_the_budget(world: World) -> None:
    first, _ = world.asked(EXACT.format(n=100))
    cents = first.spend_usd / 100
    world.ids["big"] = NEW
    report, rows = world.asked(EXACT.format(n=105), budget_usd=40 * cents)
    assert len(rows) == 105
    assert report.spend_usd <= 40 * cents
    assert report.drift[0]["then"] == {OLD: 100}
    assert "were not compared with what it says now" in sentence(report)
    world.check(report)
    done = world.calls()
    richer, _ = world.asked(EXACT.format(n=105))
    assert richer.drift[0]["asked"] == SAMPLE
    assert world.calls() - done < SAMPLE  # what was asked within the budget is kept


def test_a_model_that_answers_nothing_any_more_is_told_apart_from_one_that_is_away(
    world: World,
) -> None:
    world.asked(EXACT.format(n=100), alone=True)
    world.ids["big"] = NEW
    world.asked("SELECT smart_llm('something else', 0.0)", alone=True)
    world.server.faults = lambda call: "400"
    away, _ = world.asked(EXACT.format(n=100), alone=True)
    assert (away.drift[0]["failed"], away.drift[0]["is_significant"]) == (SAMPLE, False)
    assert "It did not answer when it was asked again" in sentence(away)
    world.server.faults = lambda call: "refused"
    refusing, _ = world.asked(EXACT.format(n=100), alone=True)
    assert (refusing.drift[0]["failed"], refusing.drift[0]["is_significant"]) == (0, True)


def test_a_comparison_that_was_killed_or_ran_out_of_money_goes_on_from_there(world: World) -> None:
    first, _ = world.asked(EXACT.format(n=100), alone=True)
    usd = first.spend_usd / 100
    poor, _ = world.asked(EXACT.format(n=100), alone=True, revalidate=True, budget_usd=30 * usd)
    assert poor.drift[0]["why"].startswith("budget of ")
    world.check(poor)
    begun = world.calls() - 100
    assert 0 < begun < SAMPLE
    rich, _ = world.asked(EXACT.format(n=100), alone=True, revalidate=True)
    assert rich.drift[0]["asked"] == SAMPLE
    assert world.calls() == 100 + SAMPLE
    world.check(rich)


def test_the_price_beforehand_has_room_for_a_comparison_on_demand(world: World) -> None:
    world.asked(EXACT.format(n=100))
    with world.opened(revalidate=True) as con:
        (call,) = con.preview(EXACT.format(n=150))
        high = call.high
    with world.opened() as con:
        (plain,) = con.preview(EXACT.format(n=150))
    report, _ = world.asked(EXACT.format(n=150), revalidate=True)
    assert plain.high < report.spend_usd <= high
