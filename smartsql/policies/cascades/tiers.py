"""A cheap model together with the call that judges its answers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from smartsql.policies.eligible import eligible
from smartsql.profile import Problem, Profile
from smartsql.types import Ask, BoolArray, Candidate, FloatArray, IntArray, Plan

CHEAP = 1.0 / 3.0
"""Share of the reference's price up to which a candidate is tried before it is known to pay."""

Asking = Generator[list[Ask], None, None]


@dataclass(frozen=True, slots=True)
class Tier:
    """A candidate and who judges it.

    Attributes:
        position: of the candidate in `Problem.models`.
        model: the candidate.
        verifier: a second call that judges its answers, if there is one.
    """

    position: int
    model: Candidate
    verifier: Candidate | None = None

    @property
    def expected_cost(self) -> float:
        """Cost of an answer and its verification as far as known before any call."""
        return self.model.expected_cost + (self.verifier.expected_cost if self.verifier else 0.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """A tier whose judge is settled: `judge` is the model itself or its verifier."""

    tier: Tier
    judge: str

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.tier.model.name

    def asks(self, prompts: IntArray) -> list[Ask]:
        """One step's asks for answers and their confidences, the answers first."""
        names = dict.fromkeys((self.name, self.judge))
        return [Ask(name, prompts) for name in names]

    def price(self, profile: Profile) -> float:
        """Mean cost of an answer with its confidence."""
        return sum(profile.mean_cost(name) for name in {self.name, self.judge})

    def scores(self, profile: Profile, prompts: IntArray) -> FloatArray:
        """Confidence of each answer, minus infinity where there is none."""
        known = profile.confidences(self.judge)[prompts]
        return np.where(np.isnan(known), -np.inf, known)

    def usable(self, profile: Profile, prompts: IntArray) -> BoolArray:
        """Whether each prompt was answered."""
        return np.asarray(profile.codes(self.name)[prompts] >= 0)


def tiers(problem: Problem) -> tuple[list[Tier], list[str]]:
    """Candidates that may save something, cheapest first, and notes on those left out.

    Models that are trained while a statement runs are left out: these systems do not train.
    """
    usable, notes = eligible(problem)
    names = [model.name for model in problem.models]
    verifiers = {v.after[0]: v for v in problem.verifiers if len(v.after) == 1}
    ladder = [
        Tier(names.index(model.name), model, verifiers.get(model.name))
        for model in usable
        if not model.learns
    ]
    notes += [f"{m.name} was not used: cascades do not train." for m in usable if m.learns]
    return sorted(ladder, key=lambda t: (t.expected_cost, t.model.name)), notes


def cheap(problem: Problem, ladder: Sequence[Tier]) -> list[Tier]:
    """The tiers that cost little beside the reference; the cheapest one in any case."""
    limit = CHEAP * problem.reference.expected_cost
    return [t for t in ladder if t.expected_cost <= limit] or list(ladder[:1])


def judge(
    profile: Profile, ladder: Sequence[Tier], prompts: IntArray, *, verifies: bool
) -> Generator[list[Ask], None, list[Judged]]:
    """Answers and confidences of tiers on some prompts; each is paid for.

    Args:
        verifies: a verifier judges wherever there is one. Else a model that says how confident
            it is judges itself, which costs nothing more.

    Returns:
        The tiers with their judges, in the order given.
    """
    yield [Ask(tier.model.name, prompts) for tier in ladder]
    judged = [Judged(tier, _judge_of(profile, tier, prompts, verifies)) for tier in ladder]
    verifications = [Ask(j.judge, prompts) for j in judged if j.judge != j.name]
    if verifications:
        yield verifications
    return judged


def _judge_of(profile: Profile, tier: Tier, prompts: IntArray, verifies: bool) -> str:
    if tier.verifier is None:
        return tier.model.name
    speaks = bool(np.isfinite(profile.confidences(tier.model.name)[prompts]).any())
    return tier.model.name if speaks and not verifies else tier.verifier.name


def by_place(problem: Problem) -> IntArray:
    """All prompts by their first place in the order: how they are stored plays no part."""
    return np.argsort(problem.population.first, kind="stable")


def reference_plan(problem: Problem, notes: Sequence[str], *, pilot_rows: int = 0) -> Plan:
    """Everything to the reference."""
    return Plan(
        np.zeros(problem.population.n_prompts, dtype=np.int64),
        bound=0.0,
        pilot_rows=pilot_rows,
        notes=(*notes, "every row goes to the reference model"),
    )
