"""The certificate of an exact audit: facts from which anyone can check it again."""

from __future__ import annotations

from typing import Any

from smartsql.policies.exact.audit import Settled, Test
from smartsql.policies.exact.pilot import Choice
from smartsql.policies.facts import promise_discrepancies, promise_facts
from smartsql.profile import Problem
from smartsql.stats.calibrate import worst_case
from smartsql.stats.design import Design, draw_up

VERSION = 1


def certificate(
    problem: Problem, choice: Choice, settled: Settled, asked: int, deployed_rows: int
) -> dict[str, Any]:
    """JSON-able facts of a decision of the exact policy.

    Rows are counted in the secret order: the pilot is rows 0 to `pilot_rows`, tests count from
    there, and `deployed` names the rows (first one, and the one after the last) of which those
    not yet answered by the reference carry the candidate's answer.
    """
    mixture = choice.mixture
    return {
        **reference_certificate(problem),
        "pilot_rows": choice.pilot,
        "asked_rows": asked,
        "tests": [_test_facts(test) for test in settled.tests],
        "deployed": {
            "model": settled.deployed.model.name if settled.deployed else None,
            "start": settled.start,
            "end": settled.end,
            "permitted": settled.permitted,
            "rows": deployed_rows,
        },
        "predicted_cost": choice.value,
        "mixture": None
        if mixture is None
        else {"shares": list(mixture.shares), "unit_cost": mixture.unit_cost},
    }


def reference_certificate(problem: Problem) -> dict[str, Any]:
    """The facts of a decision to have the reference answer all rows."""
    return promise_facts(problem, "exact", VERSION) | {
        "asked_rows": 0,
        "tests": [],
        "deployed": {"model": None, "start": 0, "end": 0, "permitted": False, "rows": 0},
        "mixture": None,
    }


def _test_facts(test: Test) -> dict[str, Any]:
    """Design, evidence and result of one test."""
    design, standing = test.design, test.standing
    return {
        "model": standing.model.name,
        "alpha": test.alpha,
        "design": {
            "rows": design.n_rows,
            "tolerated": design.tolerated,
            "last": design.last,
            "ramp": design.ramp,
            "level": design.level,
            "looks": design.looks.tolist(),
            "bounds": design.bounds.tolist(),
        },
        "worst_risk": test.worst.risk,
        "worst_errors": test.worst.errors,
        "drawn": test.drawn,
        "found": test.found,
        "issued": test.issued,
        "pilot": {
            "found": standing.found,
            "audited": standing.audited,
            "cost": standing.cost,
            "expected_cost": standing.value,
            "expected_audits": standing.audits,
        },
    }


def recheck_exact(facts: dict[str, Any]) -> list[str]:
    """What a certificate claims and does not hold; empty when all of it holds.

    Recomputes the designs and their worst risk from rows, tolerated errors and levels, and checks
    that the shares of alpha add up, that each permission follows from its counts, and that the
    deployed rows lie within a permission or are no more than may be wrong anyway.
    """
    try:
        return [*_totals(facts), *_tests(facts), *_deployment(facts)]
    except (ArithmeticError, LookupError, TypeError, ValueError) as missing:
        return [f"the certificate cannot be read: {missing!r}"]


def _totals(facts: dict[str, Any]) -> list[str]:
    """Discrepancies of the promise itself."""
    wrong = promise_discrepancies(facts)
    spent = sum(test["alpha"] for test in facts["tests"])
    if spent > facts["alpha"] * (1 + 1e-9):
        wrong.append(f"the tests spend {spent:.6g} of alpha {facts['alpha']:.6g}")
    return wrong


def _design(test: dict[str, Any]) -> Design:
    """The design that a test names, drawn up again."""
    facts = test["design"]
    return draw_up(
        int(facts["rows"]),
        int(facts["tolerated"]),
        int(facts["last"]),
        float(facts["ramp"]),
        float(test["alpha"]),
        float(facts["level"]),
    )


def _tests(facts: dict[str, Any]) -> list[str]:
    """Discrepancies of the designs, their risk, and the permissions."""
    wrong = []
    for test in facts["tests"]:
        name, design = test["model"], _design(test)
        if design.n_rows != facts["rows"] - facts["pilot_rows"]:
            wrong.append(f"{name}: its design is about {design.n_rows} rows, not those audited")
        if design.tolerated != facts["tolerated"]:
            wrong.append(f"{name}: its design tolerates {design.tolerated} errors")
        same = (
            design.looks.tolist() == test["design"]["looks"]
            and design.bounds.tolist() == test["design"]["bounds"]
        )
        if not same:
            wrong.append(f"{name}: looks and bounds are not those of its design")
        worst = worst_case(design)
        if worst.risk > test["alpha"]:
            wrong.append(
                f"{name}: with {worst.errors} errors the risk is {worst.risk:.6g}, "
                f"its share of alpha {test['alpha']:.6g}"
            )
        if abs(worst.risk - test["worst_risk"]) > 1e-6:
            wrong.append(f"{name}: worst risk is {worst.risk:.6g}, not {test['worst_risk']:.6g}")
        wrong += _permission(name, design, test)
    return wrong


def _permission(name: str, design: Design, test: dict[str, Any]) -> list[str]:
    """Discrepancies of what one test issued."""
    drawn, found, issued = test["drawn"], test["found"], test["issued"]
    if issued is None:
        return []
    looks = design.looks.tolist()
    if drawn not in looks:
        return [f"{name}: {drawn} audited rows are no look of its design"]
    bound = int(design.bounds[looks.index(drawn)])
    if drawn == design.last:
        proved: int | None = design.prefix(found)
    else:
        proved = design.n_rows if found <= bound else None
    if proved != issued:
        return [f"{name}: {found} errors in {drawn} rows prove {proved}, not {issued}"]
    return []


def _deployment(facts: dict[str, Any]) -> list[str]:
    """Discrepancies of the rows that a candidate answers."""
    deployed, pilot = facts["deployed"], facts["pilot_rows"]
    if deployed["model"] is None:
        return [] if deployed["rows"] == 0 else ["rows are deployed without a candidate"]
    start, end = deployed["start"], deployed["end"]
    if deployed["rows"] > end - start:
        return [f"{deployed['rows']} rows are deployed, {end - start} lie between start and end"]
    if not deployed["permitted"]:
        spare = facts["tolerated"]
        return [] if end - start <= spare else [f"{end - start} rows deployed without permission"]
    for test in facts["tests"]:
        if test["model"] == deployed["model"] and test["issued"] is not None:
            if pilot + test["drawn"] <= start and end <= pilot + test["issued"]:
                return []
            return [f"{deployed['model']}: rows {start} to {end} exceed its permission"]
    return [f"{deployed['model']}: deployed without a test"]
