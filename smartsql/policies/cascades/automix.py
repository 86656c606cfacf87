"""AutoMix as published: one look at the verification, then keep the answer or ask the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smartsql.policies import Steps
from smartsql.policies.cascades.pair import cascade
from smartsql.policies.cascades.routers import train_simple, train_threshold
from smartsql.profile import Problem, Profile


@dataclass(frozen=True, slots=True)
class AutoMix:
    """AutoMix with one of its one-step routers. No guarantee.

    A small model answers every row and judges its own answer: by a second call with a verification
    prompt where there is one, which is paid for on its own, else by the confidence that came with
    the answer. Eight bins of this judgement are what the router sees. It is trained on labelled
    rows, for which both models and the verification are paid.

    How the objective is mapped: published is the router with the highest incremental benefit per
    cost (IBC) over the small model, accuracy being the benefit. Under a promise about agreement
    the benefit is agreement, and how much of it is wanted is given, so the router is taken that
    reaches 1 - delta on the labelled rows at the least cost. IBC is still what `smartsql replay`
    prints.

    Attributes:
        router: "threshold" retries up to a bin; "pomdp-simple" picks from the union of the
            published families: one-step POMDP rewards, greedy gains, double and single thresholds.
            That POMDP has one step, so nothing is solved but a maximum in each bin; `automix-pomdp`
            is the real one.

    Source: AutoMix (arXiv 2310.12963), sections on self-verification and routers, and the code
    published with it. Differs: bins are octiles of the labelled rows; what was never observed is
    retried.
    """

    router: Literal["threshold", "pomdp-simple"] = "threshold"

    @property
    def name(self) -> str:
        """The strategy's name."""
        return f"automix-{self.router}"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Choose a small model, train the router, route."""
        train = train_threshold if self.router == "threshold" else train_simple
        return (yield from cascade(self.name, problem, profile, train, verifies=True))
