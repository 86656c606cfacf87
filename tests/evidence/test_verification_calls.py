"""Self-verification over real HTTP: what is asked, billed, kept, reported and checked again."""

from __future__ import annotations

import numpy as np
import pytest

from smartsql.errors import BudgetError
from tests.evidence.worlds import (
    TEXTS,
    Keeping,
    Made,
    cell_of,
    draw,
    is_verification,
    reply,
)
from tests.gateway.server import Answer, Call, Fault


def test_one_call_gives_the_probability_that_an_answer_is_right(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(small='verification = "probability"')
    policy = Keeping()
    before = world.asked(policy=policy)
    assert len(world.calls("small", verifying=True)) == len(TEXTS)
    profile = policy.profile
    np.testing.assert_array_equal(profile.codes("small verification"), profile.codes("small"))
    wrong = profile.disagrees("small", np.flatnonzero(profile.codes("big") >= 0))
    sure = profile.confidences("small verification")[profile.codes("big") >= 0]
    assert sure == pytest.approx(np.where(wrong, 0.2, 0.9), abs=1e-4)
    report = before[1]
    roles = {m.name: (m.role, m.calls, m.rows) for m in report.models}
    assert roles["small verification"] == ("verifier", len(TEXTS), 0)
    assert "small verification" not in dict(report.lines())["answered by"]
    world.check_bill(report)
    world.check_rerun(before)
    world.check_verifies(report, monkeypatch)


def test_samples_are_votes_each_an_attempt_of_its_own(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(small="verification = 4\nparameters = { temperature = 0, seed = 7 }")
    policy = Keeping()
    before = world.asked(policy=policy)
    calls = world.calls("small", verifying=True)
    assert len(calls) == 4 * len(TEXTS)
    assert {call.body["temperature"] for call in calls} == {1.0}
    assert not any({"seed", "logprobs"} & call.body.keys() for call in calls)
    sure = policy.profile.confidences("small verification")
    assert set(np.unique(sure)) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert 0.6 < sure.mean() < 0.9
    engine = world.engine()
    ledger = engine.ledger().to_pylist()
    kept = [row for row in ledger if row["model"] == "small verification"]
    assert len(kept) == 4 * len(TEXTS)
    assert sum(row["cost_usd"] for row in ledger) == pytest.approx(before[1].spend_usd)
    assert len({row["prompt_digest"] for row in kept}) == len(kept)
    models = {row["name"]: row for row in engine.models().to_pylist()}
    assert models["small verification"]["role"] == "verifier"
    assert models["small verification"]["calls"] == len(kept)
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


@pytest.mark.parametrize("text", ["", "Correct and Incorrect", "maybe", "\U0001f600", "{}"])
def test_a_verdict_that_cannot_be_read_is_no_confidence(made: Made, text: str) -> None:
    world = made(small='verification = "probability"')
    world.server.reply = lambda call: Answer(text) if is_verification(call) else reply(call)
    policy = Keeping()
    _, report = world.asked(policy=policy)
    assert np.isnan(policy.profile.confidences("small verification")).all()
    assert (policy.profile.codes("small verification") >= 0).all()
    world.check_bill(report)


def test_without_log_probabilities_the_words_decide(made: Made) -> None:
    world = made(small='verification = "probability"')
    world.server.unsupported = ("logprobs",)
    policy = Keeping()
    world.asked(policy=policy)
    sure = policy.profile.confidences("small verification")
    assert set(np.unique(sure)) == {0.0, 1.0}


def test_an_answer_that_failed_is_not_verified_and_costs_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(small='verification = "probability"')

    def sometimes(call: Call) -> Answer:
        failed = call.model == "small" and draw("fail" + cell_of(call.prompt)) < 0.3
        return Answer("who knows") if failed and not is_verification(call) else reply(call)

    world.server.reply = sometimes
    policy = Keeping()
    before = world.asked(policy=policy)
    profile = policy.profile
    failed = profile.codes("small") < 0
    assert 5 < failed.sum() < 30
    assert len(world.calls("small", verifying=True)) == (~failed).sum()
    assert (profile.costs("small verification")[failed] == 0).all()
    assert np.isnan(profile.confidences("small verification")[failed]).all()
    world.check_bill(before[1])
    world.check_rerun(before)
    world.check_verifies(before[1], monkeypatch)


def test_calls_that_fail_for_good_leave_no_confidence_and_verify(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(small="verification = 2")

    def refused(call: Call) -> Fault | None:
        is_lost = is_verification(call) and draw("lost" + cell_of(call.prompt)) < 0.3
        return Fault("status", status=400) if is_lost else None

    world.server.faults = refused
    policy = Keeping()
    _, report = world.asked(policy=policy)
    lost = np.isnan(policy.profile.confidences("small verification"))
    assert 5 < lost.sum() < 30
    world.check_bill(report)
    world.check_verifies(report, monkeypatch)


def test_a_change_of_the_settings_is_another_statement_and_keeps_the_answers(made: Made) -> None:
    first = made(small='verification = "probability"', seed=3).asked()[1]
    world = made(small="verification = 2", seed=3)
    answered = len(world.calls("small", verifying=False))
    second = world.asked()[1]
    assert second.statement != first.statement
    assert len(world.calls("small", verifying=False)) == answered
    assert len(world.calls("small", verifying=True)) == 3 * len(TEXTS)


def test_the_budget_holds_for_verification(made: Made) -> None:
    world = made(small="verification = 8", budget_usd=0.02)
    with pytest.raises(BudgetError):
        world.asked()
    billed = world.server.bill
    price = {"big": 10.0, "small": 0.3}
    spent = sum((b.prompt_tokens + b.completion_tokens) * price[b.model] / 1e6 for b in billed)
    assert 0 < spent <= 0.02


def test_a_preview_prices_the_verifier(made: Made) -> None:
    world = made(small="verification = 4")
    import pyarrow as pa

    from smartsql.sql.protocol import Call as SmartCall

    call = SmartCall("review", 0.2, 0.9, "tone")
    preview = world.engine().preview(call, pa.array(TEXTS), np.ones(len(TEXTS), dtype=np.int64))
    assert not world.server.calls
    models = {m.name: m for m in preview.models}
    verifier, small = models["small verification"], models["small"]
    assert verifier.role == "verifier"
    assert verifier.cost_per_call > 4 * small.cost_per_call > 0
    assert "verifier small verification" in str(preview)
    _, report = world.asked()
    said = {m.name: m for m in report.models}["small verification"]
    assert verifier.cost_per_call == pytest.approx(said.mean_cost, rel=0.5)
    assert verifier.prompt_tokens == pytest.approx(said.prompt_tokens, rel=0.2)
