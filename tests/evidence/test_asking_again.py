"""The reference asked again on demand: paid, counted, kept apart from the answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smartsql.cli import main
from smartsql.sql.protocol import Call as SmartCall
from tests.evidence.worlds import LABELS, TEXTS, Made, Reply, cell_of, draw, reply, truth
from tests.gateway.server import Answer, Call


def wavering(call: Call) -> Answer:
    """The reference says something else the second time on three rows of ten."""
    cell = cell_of(call.prompt)
    if call.model == "big" and call.seen and draw("waver" + cell) < 0.3:
        return Answer(LABELS[(LABELS.index(truth(cell)) + 1) % 3])
    return reply(call)


@pytest.fixture
def replying() -> Reply:
    return wavering


def test_the_report_says_how_often_the_reference_repeats_itself(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(self_agreement=15)
    before = world.asked()
    again = [call for call in world.calls("big") if call.seen]
    assert len(again) == 15
    same = sum(draw("waver" + cell_of(call.prompt)) >= 0.3 for call in again)
    assert 0 < same < 15
    report = before[1]
    assert report.self_agreement == {"asked": 15, "same": same, "failed": 0}
    assert {m.name: (m.role, m.calls, m.rows) for m in report.models}["big again"] == (
        "repeat",
        15,
        0,
    )
    assert dict(report.lines())["asked again"].startswith(f"the reference repeated {same} of 15")
    first = {cell_of(c.prompt) for c in world.calls("big") if not c.seen}
    by = dict(zip(TEXTS, before[0].answer.to_pylist(), strict=True))
    assert {text: by[text] for text in first} == {text: truth(text) for text in first}
    models = {row["name"]: row["role"] for row in world.engine().models().to_pylist()}
    assert models["big again"] == "repeat"
    world.check_bill(report)
    world.check_rerun(before)
    world.check_verifies(report, monkeypatch)
    changed = {**report.to_dict(), "self_agreement": {"asked": 15, "same": 15, "failed": 0}}
    from smartsql.ledger import Ledger
    from smartsql.reports.verify import verify

    wrong = [c.what for c in verify(changed, Ledger(world.settings.store)) if not c.holds]
    assert "answers that the reference repeated" in wrong


def test_it_is_the_same_statement_with_or_without_and_costs_only_the_second_asking(
    made: Made,
) -> None:
    plain = made(seed=4).asked()[1]
    assert plain.self_agreement is None
    done = len(made(seed=4).server.bill)
    world = made(seed=4, self_agreement=1000)
    call = SmartCall("review", 0.2, 0.9, "tone")
    ones = np.ones(len(TEXTS), dtype=np.int64)
    preview = world.engine().preview(call, pa.array(TEXTS), ones)
    again = {m.name: m for m in preview.models}["big again"]
    big = {m.name: m for m in preview.models}["big"]
    assert again.calls == (len(TEXTS),) * 3
    # those of the reference are of the prompts that are not paid for
    unpaid = 1 - big.paid / len(TEXTS)
    assert big.prompt_tokens == pytest.approx(unpaid * again.prompt_tokens, abs=1)
    report = world.asked()[1]
    assert (report.statement, report.answers_digest) == (plain.statement, plain.answers_digest)
    assert report.self_agreement is not None
    assert report.self_agreement["asked"] == 20  # all that the reference answered
    assert len(world.server.bill) - done == 20
    assert preview.high >= report.spend_usd > 0


def test_a_budget_that_ends_there_leaves_the_answers(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = made(seed=5).asked()[1].spend_usd
    world = made(seed=5, self_agreement=20, budget_usd=0.0111)
    assert spent > 0
    answers, report = world.asked()
    assert answers.answer.null_count == 0
    assert report.self_agreement is None
    assert "was not asked again as often as wanted" in " ".join(report.notes)
    world.check_verifies(report, monkeypatch)


def test_the_command_line_asks_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made()  # writes the configuration
    monkeypatch.setenv("SMARTSQL_STORE", str(tmp_path / "cli.sqlite"))
    query = "SELECT smart_llm('x' || i, 0.2, 0.9, task := 'tone') FROM range(20) t(i)"
    report = tmp_path / "report.json"
    config = str(tmp_path / "smartsql.toml")
    options = ["--config", config, "--self-agreement", "5", "--report", str(report)]
    assert main([*options, "-c", query]) == 0
    capsys.readouterr()
    assert json.loads(report.read_text())["self_agreement"]["asked"] == 5
    assert main(["verify", str(report)]) == 0
    assert "the report holds" in capsys.readouterr().out


def test_a_second_answer_that_is_no_answer_is_counted_apart(made: Made) -> None:
    world = made(self_agreement=20)

    def sulking(call: Call) -> Answer:
        sulks = call.model == "big" and call.seen and draw("sulk" + cell_of(call.prompt)) < 0.4
        return Answer("no comment") if sulks else reply(call)

    world.server.reply = sulking
    answers, report = world.asked()
    assert report.self_agreement is not None
    said = report.self_agreement
    assert said["failed"] > 2
    assert said["same"] == said["asked"] - said["failed"]
    assert answers.answer.null_count == 0
    assert "no usable answer the second time" in dict(report.lines())["asked again"]
