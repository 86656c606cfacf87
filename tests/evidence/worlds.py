"""A configuration over the test server, a policy that asks for everything, and what is checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from smartsql.asking.backends import build
from smartsql.config import load
from smartsql.engine import Answered, Engine
from smartsql.ledger import Ledger
from smartsql.policies import Policy, Steps
from smartsql.profile import Problem, Profile
from smartsql.reports.report import Report
from smartsql.reports.verify import verify
from smartsql.sql.protocol import Call as SmartCall
from smartsql.types import Ask, Plan
from tests.gateway.server import Answer, Call, TestServer

LABELS = ("good", "bad", "mixed")
FILE = """
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
input_usd_per_mtok = 0.3
output_usd_per_mtok = 0.3
{small}
{more}
[tasks.tone]
prompt = "Tone of <{{input}}>?"
labels = ["good", "bad", "mixed"]
{task}
"""
PRICES = {"big": 10.0, "small": 0.3, "hinted": 3.0}
TEXTS = [f"review {i}" for i in range(60)]


def draw(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def truth(cell: str) -> str:
    return LABELS[int(3 * draw(cell))]


def cell_of(prompt: str) -> str:
    """The cell in the last "<...>" of a prompt."""
    return prompt.rpartition("<")[2].partition(">")[0]


def judged(text: str, p: float) -> Answer:
    """An answer with its probability, beside the other labels."""
    labels = LABELS if text in LABELS else ("Correct", "Incorrect")
    rest = (1 - p) / (len(labels) - 1)
    top = [(label, math.log(p if label == text else rest)) for label in labels]
    return Answer(text, [(text, math.log(p), top)])


def is_verification(call: Call) -> bool:
    return call.prompt.startswith("Check the proposed answers")


def reply(call: Call) -> Answer:
    """`small` errs on one row of five, is unsure then, and finds its errors out."""
    cell = cell_of(call.prompt)
    wrong = draw("small" + cell) < 0.2
    if is_verification(call):
        p = 0.2 if wrong else 0.9
        said = "Correct" if draw(f"{call.seen}{cell}") < p else "Incorrect"
        if call.body.get("logprobs"):
            return judged("Correct" if p > 0.5 else "Incorrect", max(p, 1 - p))
        return Answer(f"{said}.")
    right = truth(cell)
    if call.model != "small":
        return judged(right, 0.95)
    return judged(LABELS[(LABELS.index(right) + 1) % 3] if wrong else right, 0.6 if wrong else 0.9)


Reply = Callable[[Call], Answer]


class Everything:
    """Asks candidates and verifiers about all rows, then the reference about a third."""

    name = "certified"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        every = np.argsort(problem.population.first, kind="stable")
        yield [Ask(m.name, every) for m in (*problem.candidates, *problem.verifiers)]
        yield [Ask(problem.reference.name, every[: every.size // 3])]
        last = len(problem.candidates)
        return Plan(np.full(every.size, last), bound=problem.requirement.delta)


class Keeping(Everything):
    """`Everything`, and the profile stays for the test to look at."""

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        self.profile = profile
        plan: Plan = yield from super().steps(problem, profile)
        return plan


class World:
    """An engine on the test server, with a policy that asks for everything."""

    def __init__(
        self,
        folder: Path,
        server: TestServer,
        small: str = "",
        more: str = "",
        task: str = "",
        **settings: Any,
    ) -> None:
        path = folder / "smartsql.toml"
        more = more.replace("{url}", server.base_url)
        path.write_text(FILE.format(url=server.base_url, small=small, more=more, task=task))
        self.server = server
        self.settings = load(path, store=str(folder / "answers.sqlite"), **settings)
        self.engines: list[Engine] = []

    def engine(self, policy: Policy | None = None) -> Engine:
        engine = Engine(
            self.settings,
            build(self.settings),
            Ledger(self.settings.store),
            policy=policy or Everything(),
        )
        self.engines.append(engine)
        return engine

    def asked(
        self, texts: list[str] = TEXTS, policy: Policy | None = None, task: str | None = "tone"
    ) -> tuple[Answered, Report]:
        engine = self.engine(policy)
        call = SmartCall("review", 0.2, 0.9, task)
        answers = engine.answer(call, pa.array(texts), np.ones(len(texts), dtype=np.int64))
        return answers, engine.history[-1]

    def calls(self, model: str, *, verifying: bool | None = None) -> list[Call]:
        return [
            call
            for call in self.server.calls
            if call.model == model and verifying in (None, is_verification(call))
        ]

    def check_bill(self, report: Report) -> None:
        """What the server billed is what the report and the ledger say."""
        billed = self.server.bill
        assert sum(m.calls for m in report.models) == len(billed)
        usd = sum((b.prompt_tokens + b.completion_tokens) * PRICES[b.model] / 1e6 for b in billed)
        assert report.spend_usd == pytest.approx(usd, rel=1e-9)

    def check_rerun(self, before: tuple[Answered, Report]) -> None:
        """The same again pays nothing and takes the same decisions."""
        done = len(self.server.calls)
        answers, report = self.asked()
        assert len(self.server.calls) == done
        assert report.spend_usd == 0
        assert report.answers_digest == before[1].answers_digest
        assert answers.answer.equals(before[0].answer)

    def check_verifies(self, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("smartsql.reports.verify._policy", lambda strategy: Everything())
        monkeypatch.setattr("smartsql.reports.verify._certificate", lambda said: [])
        done = len(self.server.calls)
        checks = verify(report.to_dict(), Ledger(self.settings.store))
        assert [check for check in checks if not check.holds] == []
        assert len(self.server.calls) == done

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


Made = Callable[..., World]
"""What the fixture `made` gives: worlds on one server, by their settings."""
