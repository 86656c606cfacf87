"""Which calls are one and the same, and which are not, in what is kept and what is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smartsql.errors import ConfigError
from smartsql.policies.certified import Certified
from smartsql.policies.exact.exact import Exact
from smartsql.reports.verify import verify
from tests.evidence.worlds import TEXTS, World, cell_of, draw, reply
from tests.gateway.server import Answer, Call, TestServer

MODEL = """
[[models]]
name = "{name}"
model = "{model}"
base_url = "{{url}}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = {usd}
"""
HINTED = MODEL.format(name="hinted", model="hinted", usd=3.0)
STEP = 'steps = [{{ name = "{name}", model = "small", prompt = "Topic of <{{input}}>?" }}]'


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(reply=reply) as running:
        yield running


def test_two_models_with_hints_from_different_ones_are_told_apart(
    tmp_path: Path, server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = MODEL.format(name="tiny", model="big", usd=0.1) + "parameters = { seed = 7 }\n"
    other = MODEL.format(name="other", model="hinted", usd=3.0)
    world = World(
        tmp_path,
        server,
        more=f'{HINTED}hints = ["small"]\n{tiny}{other}hints = ["tiny"]\n',
    )
    _, report = world.asked()
    calls = {model.name: model.calls for model in report.models}
    assert calls["hinted"] == calls["other"] == len(TEXTS)
    world.check_verifies(report, monkeypatch)
    world.close()


@pytest.mark.parametrize(("model", "name"), [("small", "small"), ("big", "big")])
def test_one_model_under_two_names_is_refused_before_anything_is_asked(
    tmp_path: Path, server: TestServer, model: str, name: str
) -> None:
    world = World(tmp_path, server, more=MODEL.format(name="twin", model=model, usd=0.1))
    with pytest.raises(ConfigError, match=f"'{name}' and 'twin' are one and the same"):
        world.asked()
    assert not server.calls
    world.close()


def test_a_step_of_another_name_makes_another_prompt(tmp_path: Path, server: TestServer) -> None:
    for name in ("topic", "subject"):
        world = World(
            tmp_path, server, more=f"{HINTED}uses_steps = true", task=STEP.format(name=name)
        )
        server.reset()
        server.reply = lambda call: Answer("food") if call.prompt[:5] == "Topic" else reply(call)
        world.asked()
        sent = {call.prompt for call in world.calls("hinted")}
        assert sent == {f"{name}: food\n\nTone of <{text}>?" for text in TEXTS}
        world.close()


def test_the_exact_audit_takes_a_model_that_uses_steps(tmp_path: Path, server: TestServer) -> None:
    def answer(call: Call) -> Answer:
        if call.prompt.startswith("Topic"):
            return Answer("food")
        if call.model == "small":
            return Answer("good" if draw(cell_of(call.prompt)) < 0.5 else "bad")
        return Answer(str(reply(call).text))

    server.reply = answer
    step = STEP.format(name="topic")
    cheap = MODEL.format(name="hinted", model="hinted", usd=0.3)
    world = World(tmp_path, server, more=f"{cheap}uses_steps = true", task=step)
    texts = [f"review {i}" for i in range(400)]
    for policy in (Exact(), Certified()):
        _, report = world.asked(texts, policy)
        assert {m.name: m.rows for m in report.models}["hinted"] > 0
        usd = {"big": 10.0, "small": 0.3, "hinted": 0.3}
        if policy.name == "certified":
            checks = verify(report.to_dict(), world.engines[-1].store)
            assert [check for check in checks if not check.holds] == []
    billed = sum((b.prompt_tokens + b.completion_tokens) * usd[b.model] / 1e6 for b in server.bill)
    spent = sum(engine.history[-1].spend_usd for engine in world.engines)
    assert spent == pytest.approx(billed, rel=1e-9)
    world.close()
