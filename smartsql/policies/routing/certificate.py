"""The certificate of a routed plan: every bet, so that anyone can settle them again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.policies.routing.loop import DRAWN, ESCALATED, OPEN, Audit
from smartsql.profile import Problem
from smartsql.stats.betting import Book, Draws, Urn
from smartsql.types import FloatArray

if TYPE_CHECKING:
    from smartsql.policies.routing.loop import Loop, Round, Settled
    from smartsql.policies.routing.pricing import Configuration

VERSION = 2
GROUPS = 10
"""Groups of rows that a certificate tells apart."""


def reference_facts(problem: Problem) -> dict[str, Any]:
    """The facts of a decision to have the reference answer all rows."""
    requirement = problem.requirement
    return {
        "procedure": "routed",
        "version": VERSION,
        "rows": problem.population.n_rows,
        "prompts": problem.population.n_prompts,
        "tolerated": problem.tolerated,
        "delta": requirement.delta,
        "gamma": requirement.gamma,
        "alpha": requirement.alpha,
        "pilot_rows": 0,
        "predicted_cost": float(problem.population.n_prompts),
        "deployed": {"model": None, "rows": 0, "proved": False},
    }


def routing_certificate(
    problem: Problem,
    pilot_rows: int,
    chosen: Configuration,
    settled: Settled,
    loop: Loop,
    rows: int,
) -> dict[str, Any]:
    """JSON-able facts of a routed plan."""
    threshold = loop.book.threshold
    return reference_facts(problem) | {
        "pilot_rows": pilot_rows,
        "primary": chosen.primary,
        "helpers": list(chosen.helpers),
        "predicted_cost": chosen.cost + pilot_rows,
        "columns": list(loop.evidence.names),
        "coefficients": [float(b) for b in loop.beta],
        "groups": _groups(loop),
        "found": settled.found,
        "tested_total": settled.found + problem.tolerated + 1,
        "log_evidence": settled.log_evidence if math.isfinite(settled.log_evidence) else None,
        "threshold": threshold,
        "rounds": [_round_facts(r) for r in settled.rounds],
        "escalated": settled.escalated,
        "drawn": settled.drawn,
        "deployed": {"model": chosen.primary, "rows": rows, "proved": settled.proved},
    }


def _groups(loop: Loop) -> list[dict[str, Any]]:
    """What became of the rows in scope, by predicted error rate from the highest.

    A group is cut at thresholds of the prediction at the end; `threshold` is its lowest rate.
    """
    rates = loop.rates()
    order = np.argsort(-rates, kind="stable")
    groups = []
    for part in np.array_split(order, min(GROUPS, max(1, order.size))):
        if part.size == 0:
            continue
        mass, fate = loop.mass[part], loop.fate[part]
        groups.append(
            {
                "threshold": float(rates[part[-1]]),
                "predicted_error_rate": float(np.average(rates[part], weights=mass)),
                "rows": int(mass.sum()),
                "escalated": int(mass[fate == ESCALATED].sum()),
                "drawn": int(mass[fate == DRAWN].sum()),
                "deployed": int(mass[fate == OPEN].sum()),
            }
        )
    return groups


def _round_facts(r: Round) -> dict[str, Any]:
    """A round, with all that its bets were made from."""
    facts = {
        "escalated": r.escalated,
        "drawn": r.drawn,
        "found": r.found,
        "left": r.left,
        "planned_cost": round(r.planned_cost, 2),
        "log_evidence": r.log_evidence if math.isfinite(r.log_evidence) else None,
    }
    if r.audit is None:
        return facts
    urn, draws = r.audit.urn, r.audit.draws
    return facts | {
        "audit": {
            "segments": r.audit.bases.tolist(),
            "rates": urn.p.tolist(),
            "weights": urn.weights.tolist(),
            "rows": urn.mass.astype(np.int64).tolist(),
            "ahead": int(urn.ahead.sum()),
            "found": r.audit.before,
            "stake": r.audit.stake,
            "series": r.audit.series,
            "drawn_bins": draws.bins.tolist(),
            "drawn_rows": _runs(draws.masses),
            "drawn_wrong": np.flatnonzero(draws.errors).tolist(),
        }
    }


def _runs(masses: FloatArray) -> list[list[int]]:
    """Whole numbers as pairs of a value and how often it follows itself: most rows stand alone."""
    starts = np.flatnonzero(np.diff(masses, prepend=np.nan))
    lengths = np.diff(starts, append=masses.size)
    return [[int(masses[i]), int(n)] for i, n in zip(starts, lengths, strict=True)]


def _audit_of(facts: dict[str, Any]) -> Audit:
    """The audit of a round from its facts."""
    bins = np.asarray(facts["drawn_bins"], dtype=np.int64)
    wrong = np.zeros(bins.size, dtype=np.bool_)
    wrong[facts["drawn_wrong"]] = True
    masses = np.concatenate([np.full(n, float(value)) for value, n in facts["drawn_rows"]])
    rates = np.asarray(facts["rates"], dtype=np.float64)
    urn = Urn(
        rates,
        np.asarray(facts["weights"], dtype=np.float64),
        np.asarray(facts["rows"], dtype=np.float64),
        np.arange(rates.size) < facts["ahead"],
    )
    return Audit(
        np.asarray(facts["segments"], dtype=np.int64),
        urn,
        Draws(bins, masses, wrong),
        int(facts["found"]),
        float(facts["stake"]),
        int(facts["series"]),
    )


def recheck_routing(facts: dict[str, Any]) -> list[str]:
    """What a certificate claims and does not hold; empty when all of it holds.

    Settles the bets again at the total that was tested, and checks that rows are deployed on
    evidence or are no more than may be wrong anyway.
    """
    try:
        return _discrepancies(facts)
    except (ArithmeticError, LookupError, TypeError, ValueError) as missing:
        return [f"the certificate cannot be read: {missing!r}"]


def _discrepancies(facts: dict[str, Any]) -> list[str]:
    """`recheck_routing` of a readable certificate."""
    wrong = []
    tolerated = math.floor(facts["delta"] * facts["rows"] + 1e-9)
    if facts["tolerated"] != tolerated:
        wrong.append(f"{facts['tolerated']} rows tolerated, delta allows {tolerated}")
    if abs(facts["alpha"] - (1 - facts["gamma"])) > 1e-12:
        wrong.append(f"alpha is {facts['alpha']}, gamma {facts['gamma']}")
    deployed = facts["deployed"]
    if not deployed["proved"]:
        if deployed["rows"] > tolerated:
            wrong.append(f"{deployed['rows']} rows deployed without proof, {tolerated} tolerated")
        return wrong
    total = facts["found"] + tolerated + 1
    if facts["tested_total"] != total:
        wrong.append(f"total {facts['tested_total']} was tested, {total} would break the promise")
    return wrong + _evidence_discrepancies(facts, tolerated)


def _evidence_discrepancies(facts: dict[str, Any], tolerated: int) -> list[str]:
    """What the bets do not bear out: they are settled again from the draws."""
    wrong = []
    book = Book(tolerated, facts["alpha"])
    found, left = 0, math.inf
    for number, row in enumerate(facts["rounds"]):
        if "audit" in row:
            audit = _audit_of(row["audit"])
            if not found <= audit.before <= row["found"] - audit.draws.wrong:
                wrong.append(f"round {number} starts with {audit.before} wrong rows, after {found}")
            if (audit.urn.without(audit.draws).mass.sum()) != row["left"]:
                wrong.append(f"round {number} does not leave the {row['left']} rows it claims")
            audit.settle(book)
        if row["left"] > left or row["found"] < found:
            wrong.append(f"round {number} unmakes what an earlier one found")
        found, left = row["found"], row["left"]
        claimed = -math.inf if row["log_evidence"] is None else row["log_evidence"]
        if number < len(facts["rounds"]) - 1 and not _equal(book.evidence(found), claimed):
            wrong.append(f"the evidence after round {number} is not {claimed:.6g}")
    if facts["found"] > found:
        wrong.append(f"{facts['found']} wrong rows are claimed, the rounds found {found}")
    evidence = book.evidence(facts["found"])
    if not _equal(evidence, facts["log_evidence"]):
        wrong.append(f"the evidence is {evidence:.6g}, not {facts['log_evidence']:.6g}")
    if evidence < -math.log(facts["alpha"]) - 1e-9:
        wrong.append(
            f"evidence {evidence:.6g} is below ln(1/alpha) {-math.log(facts['alpha']):.6g}"
        )
    return wrong


def _equal(one: float, other: float) -> bool:
    """Whether two figures of evidence are the same but for rounding."""
    return one == other or abs(one - other) <= 1e-6 * max(1.0, abs(one))
