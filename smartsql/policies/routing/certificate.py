"""The certificate of a routed plan: every bet, so that anyone can settle them again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.policies.facts import promise_discrepancies, promise_facts
from smartsql.policies.routing.loop import DRAWN, ESCALATED, OPEN, Audit
from smartsql.profile import Problem
from smartsql.stats.betting import Book, Draws, Urn
from smartsql.types import FloatArray, Requirement

if TYPE_CHECKING:
    from smartsql.policies.routing.loop import Loop, Round, Settled
    from smartsql.policies.routing.pricing import Configuration

VERSION = 2
GROUPS = 10
"""Groups of rows that a certificate tells apart."""


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
    return promise_facts(problem, "routed", VERSION) | {
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
    masses = np.concatenate([np.full(_count(n), float(_count(m))) for m, n in facts["drawn_rows"]])
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
        _count(facts["found"]),
        float(facts["stake"]),
        _count(facts["series"]),
    )


def recheck_routing(facts: dict[str, Any]) -> list[str]:
    """What a certificate claims and does not hold; empty when all of it holds.

    Follows the rows through the rounds, settles the bets again at the total that was tested, and
    checks that rows are deployed on evidence or are no more than may be wrong anyway. That the
    draws were those of the secret order is not in the certificate: a verification by the ledger
    makes the whole run again.
    """
    try:
        return _discrepancies(facts)
    except (ArithmeticError, LookupError, TypeError, ValueError) as missing:
        return [f"the certificate cannot be read: {missing!r}"]


def _discrepancies(facts: dict[str, Any]) -> list[str]:
    """`recheck_routing` of a readable certificate."""
    if facts["version"] != VERSION:
        return [f"the certificate has version {facts['version']!r}; {VERSION} can be checked here"]
    wrong = promise_discrepancies(facts)
    requirement = Requirement(facts["delta"], facts["gamma"])
    tolerated = requirement.tolerated(_count(facts["rows"]))
    if _count(facts["prompts"]) > facts["rows"]:
        wrong.append(f"{facts['prompts']} prompts are more than {facts['rows']} rows")
    deployed = facts["deployed"]
    if "groups" in facts:
        wrong += _group_discrepancies(facts, _count(deployed["rows"]))
    if not deployed["proved"]:
        if _count(deployed["rows"]) > tolerated:
            wrong.append(f"{deployed['rows']} rows deployed without proof, {tolerated} tolerated")
        return wrong
    total = _count(facts["found"]) + tolerated + 1
    if facts["tested_total"] != total:
        wrong.append(f"total {facts['tested_total']} was tested, {total} would break the promise")
    wrong += _flow_discrepancies(facts, _count(deployed["rows"]))
    return wrong + _evidence_discrepancies(facts, Book(tolerated, requirement.alpha))


def _group_discrepancies(facts: dict[str, Any], deployed: int) -> list[str]:
    """Where the groups do not add up to the rows in scope, or to those deployed."""
    wrong = []
    for number, group in enumerate(facts["groups"]):
        fates = sum(_count(group[fate]) for fate in ("escalated", "drawn", "deployed"))
        if fates != _count(group["rows"]):
            wrong.append(f"group {number} has {group['rows']} rows, {fates} of them accounted for")
    carried = sum(group["deployed"] for group in facts["groups"])
    if carried != deployed:
        wrong.append(f"{deployed} rows are deployed, by groups {carried}")
    if _scope(facts) + _count(facts["pilot_rows"]) > facts["rows"]:
        wrong.append(f"scope and pilot hold more than the {facts['rows']} rows")
    return wrong + _plan_discrepancies(facts, deployed)


def _plan_discrepancies(facts: dict[str, Any], deployed: int) -> list[str]:
    """Where those that are said to answer cannot have answered so many rows."""
    wrong = []
    parts = facts["plan"]["answers"] if "plan" in facts else []
    for part in parts:
        if _count(part["deployed"]) > _count(part["prompts"]):
            wrong.append(f"{part['model']} answers more prompts than it has")
    if sum(part["prompts"] for part in parts) > facts["prompts"]:
        wrong.append(f"the plan is about more than the {facts['prompts']} prompts")
    carried = sum(part["deployed"] for part in parts)
    if parts and (carried > deployed or (deployed and not carried)):
        wrong.append(f"the plan hands out {carried} prompts with {deployed} rows")
    named = {facts["primary"], facts["deployed"]["model"], *(part["model"] for part in parts[:1])}
    if len(named) > 1:
        wrong.append(f"the primary is {facts['primary']}, others are named: {sorted(named)}")
    return wrong


def _scope(facts: dict[str, Any]) -> int:
    """Rows in scope before the first draw."""
    return sum(_count(group["rows"]) for group in facts["groups"])


def _flow_discrepancies(facts: dict[str, Any], deployed: int) -> list[str]:
    """Rows and wrong rows that appear or vanish between two rounds, or at the end."""
    wrong = []
    left, found = _scope(facts), 0
    for number, row in enumerate(facts["rounds"]):
        escalated, drawn = _count(row["escalated"]), _count(row["drawn"])
        rest, most = left - escalated, left - _count(row["left"])
        if "audit" in row:
            audit = _audit_of(row["audit"])
            wrong += [f"round {number}: {what}" for what in _impossible(audit)]
            if audit.draws.bins.size != drawn:
                wrong.append(f"round {number} drew {drawn}, and {audit.draws.bins.size} are listed")
            urn = int(audit.urn.mass.sum())
            # an escalated prompt has at least one row
            if urn > rest or (escalated == 0 and urn != left):
                wrong.append(f"round {number} draws from {urn} rows, {rest} are left at most")
            if row["left"] != urn - audit.draws.masses.sum():
                wrong.append(f"round {number} does not leave the {row['left']} rows it claims")
            if row["found"] != audit.before + audit.draws.wrong:
                wrong.append(f"round {number} did not find the {row['found']} it claims")
            if not found <= audit.before <= found + left - urn:
                wrong.append(f"round {number} starts with {audit.before} wrong rows, after {found}")
        elif most < escalated + drawn or not found <= _count(row["found"]) <= found + most:
            wrong.append(f"round {number} unmakes what an earlier one found")
        left, found = row["left"], row["found"]
    if left != deployed:
        wrong.append(f"{deployed} rows are deployed, the last round leaves {left}")
    for name in ("escalated", "drawn"):
        if facts[name] != sum(row[name] for row in facts["rounds"]):
            wrong.append(f"{facts[name]} prompts {name}, the rounds say otherwise")
    if facts["found"] > found:
        wrong.append(f"{facts['found']} wrong rows are claimed, the rounds found {found}")
    return wrong


def _impossible(audit: Audit) -> list[str]:
    """What no audit can have: its bets would prove nothing."""
    urn, draws = audit.urn, audit.draws
    held = np.bincount(draws.bins, draws.masses, urn.mass.size)
    whole = (urn.mass >= 0) & (urn.mass % 1 == 0)
    fine = {
        "rates are not between 0 and 1": bool(((urn.p > 0) & (urn.p < 1)).all()),
        "weights are not above 0": bool(((urn.weights > 0) & np.isfinite(urn.weights)).all()),
        "there are bins without one rate, weight and number of rows": urn.p.shape
        == urn.weights.shape
        == urn.mass.shape
        == held.shape,
        "rows are no whole numbers": bool(whole.all() and (draws.masses >= 1).all()),
        "more rows are drawn from a bin than it holds": bool((held <= urn.mass).all()),
        "the stake is not between 0 and 1": 0.0 <= audit.stake <= 1.0,
    }
    return [what for what, holds in fine.items() if not holds]


def _evidence_discrepancies(facts: dict[str, Any], book: Book) -> list[str]:
    """What the bets do not bear out: they are settled again from the draws."""
    wrong = []
    for number, row in enumerate(facts["rounds"]):
        if "audit" in row:
            _audit_of(row["audit"]).settle(book)
        ends = number == len(facts["rounds"]) - 1
        evidence, claimed = book.evidence(facts["found"] if ends else row["found"]), _claimed(row)
        if not _equal(evidence, claimed):
            wrong.append(f"the evidence after round {number} is {evidence:.6g}, not {claimed:.6g}")
    evidence, claimed = book.evidence(facts["found"]), _claimed(facts)
    if not _equal(evidence, claimed):
        wrong.append(f"the evidence is {evidence:.6g}, not {claimed:.6g}")
    if not _equal(book.threshold, facts["threshold"]):
        wrong.append(f"evidence of {facts['threshold']!r} is not ln(1/alpha) {book.threshold:.6g}")
    if not evidence >= book.threshold - 1e-9:
        wrong.append(f"evidence {evidence:.6g} is below ln(1/alpha) {book.threshold:.6g}")
    return wrong


def _claimed(facts: dict[str, Any]) -> float:
    """The evidence that a round, or the whole, claims to have gathered."""
    return -math.inf if facts["log_evidence"] is None else float(facts["log_evidence"])


def _count(value: Any) -> int:
    """A number of rows, prompts or errors."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _equal(one: float, other: float) -> bool:
    """Whether two figures of evidence are the same but for rounding."""
    return one == other or abs(one - other) <= 1e-6 * max(1.0, abs(one))
