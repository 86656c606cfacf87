"""A configuration laid out over the rows: who is asked, and whose answer each row carries."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from smartsql.policies.routing import predictor
from smartsql.policies.routing.courses import (
    ASK_SECOND,
    CELLS,
    COURSES,
    Part,
    cells,
    courses_for,
    second_rates,
)
from smartsql.policies.routing.evidence import evidence
from smartsql.policies.routing.loop import unasked
from smartsql.policies.routing.pilot import Pilot
from smartsql.policies.routing.pricing import Configuration, risk_of
from smartsql.profile import Problem, Profile
from smartsql.types import FAILED, Ask, IntArray


def in_order(problem: Problem, prompts: IntArray) -> IntArray:
    """Prompts by their place in the secret order: how they are stored plays no part."""
    return prompts[np.argsort(problem.population.first[prompts], kind="stable")]


def laid(
    problem: Problem, profile: Profile, pilot: Pilot, chosen: Configuration
) -> Generator[list[Ask], None, tuple[tuple[Part, ...], dict[str, Any]]]:
    """Ask the candidates of a configuration.

    Returns:
        Who answers which prompts, and the same in words and numbers for the certificate.
    """
    every = in_order(problem, np.arange(problem.population.n_prompts))
    fresh = every[unasked(profile, problem, every)]
    fresh = fresh[: int(np.ceil(chosen.share * fresh.size))]
    within = in_order(problem, np.concatenate([fresh, pilot.prompts]))
    names = (chosen.primary, *chosen.helpers)
    learning = {model.name for model in pilot.learners}
    # answers about rows that trained a candidate say nothing of it: those are left out
    yield [Ask(name, fresh, fit=True) if name in learning else Ask(name, within) for name in names]
    for name in names:
        within = within[profile.known(name, within)]
    everyone = Part(chosen.primary, chosen.helpers, within)
    if chosen.second is None:
        return (everyone,), _told((everyone,), [])
    groups = _groups(problem, profile, pilot, chosen, within)
    passed = groups[1][groups[0]] == ASK_SECOND
    passed |= profile.codes(chosen.primary)[within] == FAILED
    yield [Ask(chosen.second, within[passed])]
    parts = (
        Part(chosen.primary, chosen.helpers, within[~passed]),
        Part(chosen.second, names, within[passed]),
    )
    counts = np.bincount(groups[0], minlength=CELLS)
    told = [
        {"group": k, "risk": float(groups[2][k]), "prompts": int(counts[k]), "course": COURSES[c]}
        for k, c in enumerate(groups[1])
        if counts[k]
    ]
    return parts, _told(parts, told)


def _groups(
    problem: Problem, profile: Profile, pilot: Pilot, chosen: Configuration, within: IntArray
) -> tuple[IntArray, IntArray, np.ndarray]:
    """Group of each prompt, course of each group, and its mean risk."""
    assert chosen.second is not None
    pricing = pilot.pricing
    facts = evidence(profile, chosen.primary, chosen.helpers, within)
    trained = np.isin(within, pricing.known((chosen.primary, *chosen.helpers, chosen.second)))
    labelled = within[trained]
    wrong = profile.disagrees(chosen.primary, labelled).astype(np.float64)
    risk = risk_of(facts, facts.at(trained), wrong)
    other = profile.disagrees(chosen.second, labelled).astype(np.float64)
    cell = cells(risk)
    counts = np.bincount(cell, minlength=CELLS).astype(np.float64)
    some = np.maximum(counts, 1.0)
    first = np.bincount(cell, predictor.sigmoid(risk), CELLS) / some
    second = np.bincount(cell, second_rates(risk[trained], other, risk), CELLS) / some
    budget = chosen.budget * problem.tolerated
    course = courses_for(first, second, counts, pricing.price(chosen.second), budget)
    return cell, course, first


def _told(parts: tuple[Part, ...], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The plan for the certificate."""
    return {
        "answers": [
            {"model": part.answers, "after": list(part.helpers), "prompts": int(part.prompts.size)}
            for part in parts
        ],
        "groups": groups,
    }
