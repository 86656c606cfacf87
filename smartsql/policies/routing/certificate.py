"""The certificate of a routed plan: every bet, so that anyone can settle them again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.profile import Problem
from smartsql.stats.betting import Bets

if TYPE_CHECKING:
    from smartsql.policies.routing.loop import Loop, Settled
    from smartsql.policies.routing.pilot import Configuration

VERSION = 1


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
    bets = settled.bets
    return reference_facts(problem) | {
        "pilot_rows": pilot_rows,
        "primary": chosen.primary,
        "helpers": list(chosen.helpers),
        "predicted_cost": chosen.cost + pilot_rows,
        "columns": list(loop.evidence.names),
        "coefficients": [float(b) for b in loop.beta],
        "found": settled.found,
        "tested_total": settled.found + problem.tolerated + 1,
        "log_evidence": settled.log_evidence if math.isfinite(settled.log_evidence) else None,
        "threshold": float(-np.log(problem.requirement.alpha)),
        "bets": {
            "factors": bets.factors.tolist(),
            "slopes": bets.slopes.tolist(),
            "totals": bets.totals.tolist(),
        },
        "rounds": [
            {
                "escalated": r.escalated,
                "drawn": r.drawn,
                "found": r.found,
                "left": r.left,
                "planned_cost": r.planned_cost,
                "log_evidence": r.log_evidence if math.isfinite(r.log_evidence) else None,
            }
            for r in settled.rounds
        ],
        "escalated": settled.escalated,
        "drawn": settled.drawn,
        "deployed": {"model": chosen.primary, "rows": rows, "proved": settled.proved},
    }


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
    arrays = [np.asarray(facts["bets"][name], dtype=float) for name in Bets.__slots__]
    if len({array.size for array in arrays}) != 1 or any((arrays[1] < 0).tolist()):
        wrong.append("factors, slopes and totals of the bets do not belong together")
        return wrong
    evidence = float(Bets(*arrays).log_evidence(total))
    if abs(evidence - facts["log_evidence"]) > 1e-6 * max(1.0, abs(evidence)):
        wrong.append(f"the evidence is {evidence:.6g}, not {facts['log_evidence']:.6g}")
    if evidence < -math.log(facts["alpha"]) - 1e-9:
        wrong.append(
            f"evidence {evidence:.6g} is below ln(1/alpha) {-math.log(facts['alpha']):.6g}"
        )
    return wrong
