"""Which candidates may answer at all, before anything is asked."""

from __future__ import annotations

from smartsql.profile import Problem
from smartsql.types import Candidate

SMALLEST_ALPHA = 1e-6
"""Below this chance of a broken promise the reference answers all rows."""
FEWEST_ROWS = 12
"""Up to so many rows the reference answers all."""


def eligible(problem: Problem) -> tuple[list[Candidate], list[str]]:
    """Candidates that may save something, none where the reference is to answer all rows.

    Returns:
        The candidates that cost less than the reference, and sentences on what was left out.
    """
    n_rows, alpha = problem.population.n_rows, problem.requirement.alpha
    usable, notes = _cheaper(problem)
    if problem.tolerated < 1 or n_rows <= FEWEST_ROWS:
        notes.append(
            f"{n_rows} row(s), {problem.tolerated} of which may differ: the reference answers all."
        )
        usable = []
    if alpha < SMALLEST_ALPHA:
        notes.append(f"gamma leaves a chance of {alpha:.3g} only: the reference answers all.")
        usable = []
    return usable, notes


def _cheaper(problem: Problem) -> tuple[list[Candidate], list[str]]:
    """Candidates that cost less than the reference, and a note on each that does not."""
    price = problem.reference.expected_cost
    if price <= 0.0:
        return [], ["The reference model costs nothing, so it answers all rows."]
    expected = {model.name: model.expected_cost for model in problem.callable}
    usable, notes = [], []
    for candidate in problem.candidates:
        if sum(expected[name] for name in problem.calls_of(candidate.name)) < price:
            usable.append(candidate)
        else:
            notes.append(f"{candidate.name} was not used: it costs as much as the reference.")
    return usable, notes
