"""Whole statements under the promise, with every kind of evidence configured."""

from __future__ import annotations

from pathlib import Path

import pytest

import smartsql
from smartsql.ledger import Ledger
from smartsql.reports.verify import verify
from tests.evidence.worlds import PRICES, cell_of, reply, truth
from tests.gateway.server import Answer, Call, TestServer

CONFIG = """
seed = 11
self_agreement = 10
[[models]]
name = "big"
base_url = "{url}"
reference = true
input_usd_per_mtok = 10.0
output_usd_per_mtok = 10.0
[[models]]
name = "small"
base_url = "{url}"
logprobs = true
verification = "probability"
input_usd_per_mtok = 0.3
output_usd_per_mtok = 0.3
[[models]]
name = "hinted"
base_url = "{url}"
hints = ["small"]
input_usd_per_mtok = 3.0
output_usd_per_mtok = 3.0
[[models]]
name = "stepped"
base_url = "{url}"
uses_steps = true
prompt = "About {topic}: tone of <{input}>?"
input_usd_per_mtok = 3.0
output_usd_per_mtok = 3.0
[tasks.tone]
prompt = "What is the tone of the review between the brackets? <{input}>"
labels = ["good", "bad", "mixed"]
steps = [{ name = "topic", model = "small", prompt = "Topic of <{input}>?" }]
"""
QUERY = (
    "SELECT 'review ' || i AS cell, smart_llm('review ' || i, {delta}, 0.95, task := 'tone') AS a"
)


@pytest.mark.parametrize("delta", [0.02, 0.1, 0.25])
def test_the_promise_the_bill_and_the_decisions_hold(tmp_path: Path, delta: float) -> None:
    def answer(call: Call) -> Answer:
        return Answer("food") if call.prompt.startswith("Topic") else reply(call)

    prices = {**PRICES, "stepped": 3.0}
    with TestServer(reply=answer) as server:
        path = tmp_path / "smartsql.toml"
        path.write_text(CONFIG.replace("{url}", server.base_url))
        store = str(tmp_path / "a.sqlite")
        query = f"{QUERY.format(delta=delta)} FROM range(700) t(i)"
        with smartsql.connect(config=path, store=store) as con:
            rows = con.execute(query).fetchall()
            report = con.reports[-1]
            bill = sum(
                (b.prompt_tokens + b.completion_tokens) * prices[b.model] / 1e6 for b in server.bill
            )
            assert sum(said != truth(cell) for cell, said in rows) <= delta * 700
            assert report.spend_usd == pytest.approx(bill, rel=1e-9)
            assert sum(m.calls for m in report.models) == len(server.bill)
            paid = len(server.bill)
            assert sorted(con.execute(query).fetchall()) == sorted(rows)
            assert len(server.bill) == paid
            assert con.reports[-1].spend_usd == 0
        checks = verify(report.to_dict(), Ledger(store))
        assert [check for check in checks if not check.holds] == []
        assert {cell_of(c.prompt) for c in server.calls if c.model == "big"} <= {r[0] for r in rows}
