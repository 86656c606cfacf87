"""One code path: SQL against a server and a replay of its answers spend and answer the same."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smartsql
from smartsql.executor import run
from smartsql.gateway import Price
from smartsql.gateway.openai_wire import judged
from smartsql.ledger import Ledger
from smartsql.replay.parquet import load
from smartsql.replay.recording import RecordedSource
from smartsql.replay.runs import Case, measure
from smartsql.replay.strategies import strategy
from smartsql.reports.verify import verify
from smartsql.types import Requirement
from tests.gateway.server import Answer, TestServer

LABELS = ("positive", "negative")
PRICES = {"big": 10.0, "middle": 1.0, "small": 0.3}  # USD per million tokens
USAGE = (24, 2)  # what is expected of a prompt of 64 bytes and an answer of at most 2 tokens
ROWS = 700


def draw(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def choices(prompt: str) -> tuple[str, str]:
    """Labels for reviews, words of their own for tickets."""
    if prompt.startswith("review"):
        return LABELS
    return f"Ticket {prompt[7:12]}", f"number {int(40 * draw(prompt))}"


def said(model: str, prompt: str) -> Answer:
    """The cheaper a model, the more often it errs, and more so where it is less sure."""
    right, wrong = choices(prompt)
    if draw(prompt) < 0.4:
        right, wrong = wrong, right
    if model == "big":
        return Answer(right, None, USAGE)
    sure = 0.5 + 0.4999 * draw(model + "sure" + prompt)
    errs = draw(model + prompt) < {"middle": 0.3, "small": 0.7}[model] * (1 - sure) ** 1.5 * 2
    token, other = (wrong, right) if errs else (right, wrong)
    alternatives = [(token, math.log(sure)), (other, math.log(1 - sure))]
    return Answer(token, [(token, math.log(sure), alternatives)], USAGE)


def text(i: int, about: str) -> str:
    return f"{about} {i:05d}: {'word ' * (i % 7)}{'7' * (i % 3)}".ljust(63, "x") + "."


@dataclass
class Shop:
    """A table, its models, and a file of everything that the models say."""

    server: TestServer
    folder: Path
    about: str = "review"

    def connection(self, seed: int) -> Any:
        models = [
            smartsql.Model(
                name=name,
                base_url=self.server.base_url,
                reference=name == "big",
                logprobs=name != "big",
                input_usd_per_mtok=price,
                output_usd_per_mtok=price,
                parameters={"max_completion_tokens": 2},
            )
            for name, price in PRICES.items()
        ]
        store = self.folder / f"{seed}.sqlite"
        con = smartsql.connect(
            config=smartsql.Settings(), models=models, store=str(store), seed=seed
        )
        con.register(
            "texts", pa.table({"i": range(ROWS), "t": [text(i, self.about) for i in range(ROWS)]})
        )
        return con

    def record(self) -> Path:
        """All answers as one file of recorded answers; confidences as the client reads them."""
        lines = []
        for name, price in PRICES.items():
            cost = Price(price, price, "").cost_usd(*USAGE)
            for i in range(ROWS):
                answer = said(name, text(i, self.about))
                lines.append(
                    {
                        "row_id": i,
                        "input": text(i, self.about),
                        "model": name,
                        "output": answer.text,
                        "cost_usd": cost,
                        "confidence": self._read(answer) if answer.logprobs else None,
                    }
                )
        # how the lines are stored plays no part
        lines.sort(key=lambda line: draw(str(line["row_id"]) + str(line["model"])))
        path = self.folder / "recorded.parquet"
        pq.write_table(pa.Table.from_pylist(lines), path)
        return path

    @staticmethod
    def _read(answer: Answer) -> float | None:
        content = [
            {
                "token": token,
                "logprob": logprob,
                "top_logprobs": [{"token": t, "logprob": lp} for t, lp in alternatives],
            }
            for token, logprob, alternatives in answer.logprobs or []
        ]
        return judged({"content": content}, ())[0]


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    with TestServer(answer=said) as server:
        yield Shop(server, tmp_path)


@pytest.mark.parametrize(
    ("seed", "delta", "about"),
    [(1, 0.1, "review"), (2, 0.05, "review"), (3, 0.02, "review"), (4, 0.1, "ticket")],
)
def test_a_statement_spends_and_answers_as_its_replay_does(
    shop: Shop, seed: int, delta: float, about: str
) -> None:
    shop.about = about
    with shop.connection(seed) as con:
        query = f"SELECT i, answer, model FROM smart_llm(texts, t, delta := {delta}) ORDER BY i"
        answered = con.execute(query).fetchall()
        report = con.reports[-1]
        recording = load(shop.record(), "big", models=("middle", "small"))
    replayed = measure(recording, Case("certified", Requirement(delta, 0.95), seed))
    calls = {model.name: model.calls for model in report.models}
    assert replayed["calls"] == calls
    assert replayed["spend_usd"] == pytest.approx(report.spend_usd, rel=1e-12)
    assert (replayed["pilot_rows"], replayed["audited_rows"], replayed["bound"]) == (
        report.pilot_rows,
        report.audited_rows,
        report.bound,
    )
    problem = recording.problem(Requirement(delta, 0.95), seed)
    outcome = run(strategy("certified", recording), problem, RecordedSource(recording))
    by = [problem.models[k].name for k in outcome.answered_by.tolist()]
    table = pq.read_table(shop.folder / "recorded.parquet", columns=["row_id", "model", "output"])
    outputs = {(r["row_id"], r["model"]): r["output"] for r in table.to_pylist()}
    order = list(dict.fromkeys(r["row_id"] for r in table.to_pylist()))
    expected = {row: (outputs[row, model], model) for row, model in zip(order, by, strict=True)}
    assert {i: (answer, model) for i, answer, model in answered} == expected
    assert report.certificate["procedure"] == "routed"
    ledger = Ledger(str(shop.folder / f"{seed}.sqlite"))
    checks = verify(report.to_dict(), ledger)
    ledger.close()
    assert [check for check in checks if not check.holds] == []
    assert report.spend_usd < 0.9 * report.reference_spend_usd
