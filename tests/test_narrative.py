from __future__ import annotations

from typing import Any

import numpy as np

from smartsql.executor import Outcome, run
from smartsql.policies.certified import Certified
from smartsql.policies.exact.exact import Exact
from smartsql.replay.recording import RecordedSource, Recording
from smartsql.reports.narrative import BARS, bars, groups_html, path_svg, plan_lines
from smartsql.types import Requirement


def recorded(rows: int = 900) -> Recording:
    """A candidate that errs where its confidence is low."""
    rng = np.random.default_rng(3)
    sure = rng.random(rows)
    truth = rng.integers(0, 2, rows)
    wrong = rng.random(rows) < 0.5 * (1 - sure) ** 2
    return Recording.of(
        {"large": truth, "small": np.where(wrong, 1 - truth, truth)},
        {"large": 1.0, "small": 0.02},
        confidences={"small": sure},
    )


def solved(policy: Any, delta: float = 0.1) -> Outcome:
    data = recorded()
    return run(policy, data.problem(Requirement(delta, 0.95), 4), RecordedSource(data))


def test_a_routed_plan_is_told_with_its_counts_and_its_path() -> None:
    outcome = solved(Certified())
    facts = outcome.plan.certificate
    told = dict(plan_lines(facts))
    assert "small asked 900 prompts" in told["plan"]
    assert f"answers {int((outcome.answered_by == 1).sum()):,}" in told["plan"]
    assert "confidence" in told["evidence"]
    assert f"{facts['found']:,} wrong rows" in told["routed"]
    assert told["proof"].startswith(BARS[0])
    assert f" in {len(facts['rounds'])} rounds" in told["proof"]
    assert path_svg(facts).count("<polyline") == 1
    assert groups_html(facts).count("<tr>") == 1 + len(facts["groups"])
    assert sum(group["rows"] for group in facts["groups"]) <= 900


def test_an_exact_audit_is_told_in_its_own_words() -> None:
    facts = solved(Exact(), 0.3).plan.certificate
    told = dict(plan_lines(facts))
    assert "small on all rows" in told["plan"]
    assert "audited rows differed" in told["proof"]
    assert path_svg(facts) == groups_html(facts) == ""


def test_nothing_is_told_where_the_reference_answers_all() -> None:
    assert plan_lines(solved(Certified(), 0.0).plan.certificate) == []


def test_bars_rise_to_the_threshold_and_stay_within_it() -> None:
    assert bars([None, -1.0, 1.5, 3.0, 4.0], 3.0) == BARS[0] * 2 + BARS[4] + BARS[-1] * 2
