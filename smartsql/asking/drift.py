"""Drift: an endpoint that answers with another model than before, under the same name.

Answers are kept under what the configuration says of a model, and with each of them the model id
that the endpoint gave. Where a result rests on answers of another id than the latest one that is
known, the model is asked again about a random sample of the prompts behind them, and what it says
is compared with the answers that are kept. On demand (`revalidate`) the reference is compared with
its earlier answers whether or not its id has changed.

What is found changes no answer and no decision: the promise is about the answers that are kept,
the report says so, and how to have them asked anew where too many of them would be others today.
The comparison is paid once: a rerun finds it in the ledger, under the id that it was made for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from smartsql.asking.again import compared
from smartsql.asking.exchange import Exchange
from smartsql.calls.work import Work
from smartsql.errors import BudgetError
from smartsql.executor import Outcome, Source
from smartsql.gateway import Backend
from smartsql.gateway.worker import LocalBackend
from smartsql.ledger import Ledger, served
from smartsql.profile import Profile
from smartsql.stats.hypergeometric import at_most, more_than
from smartsql.templates import recheck_name
from smartsql.types import IntArray

SAMPLE = 30
"""Prompts of a comparison: with all answers the same, at least nine of ten are, 95 % sure."""
LEVEL = 0.05
"""Probability with which a bound on the share of changed answers may be wrong."""
SHARE_OF_DELTA = 0.25
"""Drift counts where surely more than this share of what the promise allows has changed."""


class Verdict(NamedTuple):
    """What a sample says of all answers; each bound holds with probability 1 - LEVEL.

    Attributes:
        kept_at_least: share of the answers that the model would give again.
        changed_at_least: share that it would not.
        is_significant: so many have changed that they are worth asking anew.
    """

    kept_at_least: float
    changed_at_least: float
    is_significant: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What a report says of one model whose earlier answers were looked at again.

    Attributes:
        now: the id that the endpoint gave last; None where it gives none.
        then: answers by the other ids that gave them; empty where no change is known.
        answers: that were not given by `now`, or, on demand, those of earlier runs.
        on_demand: the latter.
        asked, same: prompts of the sample, and those with the same answer as before.
        failed: those that brought no answer at all; they count for nothing.
        why: nothing could be compared.
    """

    model: str
    role: str
    now: str | None
    then: dict[str, int]
    answers: int
    on_demand: bool
    asked: int = 0
    same: int = 0
    failed: int = 0
    kept_at_least: float = 0.0
    changed_at_least: float = 0.0
    is_significant: bool = False
    why: str = ""


def verdict(answers: int, drawn: int, same: int, delta: float) -> Verdict:
    """Judge a sample without replacement, by the exact hypergeometric tails.

    Args:
        answers: from which the sample was drawn.
        drawn: prompts of the sample, at most `answers`.
        same: of these, answered as before.
        delta: share of rows that may differ by the promise.
    """
    changed = drawn - same
    counts = range(answers + 1)
    # the most changed answers with which so few in the sample are not too unlikely
    many = bisect_left(counts, 1, key=lambda k: int(at_most(answers, k, drawn, changed) < LEVEL))
    # the fewest with which so many are not
    few = bisect_left(
        counts, 1, key=lambda k: int(more_than(answers, k, drawn, changed - 1) >= LEVEL)
    )
    kept = 1.0 - (many - 1) / answers
    least = few / answers
    return Verdict(kept, least, least > SHARE_OF_DELTA * delta)


def with_rechecks(work: Work, backends: Mapping[str, Backend], *, on_demand: bool) -> Work:
    """The call, in which models may also be compared with their earlier answers.

    Models in this process are what their identity says. Only the reference is compared on demand.
    """
    added = [
        (replace(recipe, name=recheck_name(recipe.name), role="repeat"), cost, identity)
        for recipe, cost, identity in zip(
            work.recipes, work.expected_costs, work.identities, strict=True
        )
        if (on_demand and recipe.role == "reference")
        or (recipe.answers_rows and not isinstance(backends[recipe.backend], LocalBackend))
    ]
    return replace(
        work,
        recipes=(*work.recipes, *(recipe for recipe, _, _ in added)),
        expected_costs=(*work.expected_costs, *(cost for _, cost, _ in added)),
        identities=(*work.identities, *(f"{identity} rechecked" for *_, identity in added)),
    )


class Drift:
    """Looks for drift at the end of one run.

    Args:
        store: where the answers are.
        exchange: of the run.
        run: its number.
        on_demand: for which time the statement is run with a comparison on demand; None without.
    """

    def __init__(
        self, store: Ledger, exchange: Exchange, run: int, on_demand: int | None = None
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._run = run
        self._on_demand = on_demand

    def findings(self, outcome: Outcome, source: Source | None) -> tuple[dict[str, Any], ...]:
        """What is to be said of each model whose answers the rows rest on; JSON-able.

        Args:
            source: who is asked; None where nobody may be asked any more.

        Raises:
            CancelledError, LedgerError: see `Exchange.fulfil`.
        """
        found = []
        for name in self._models(outcome):
            number = self._number(name)
            ids = served.ids(self._store, number)
            on_demand = self._on_demand is not None and name == self._reference(outcome)
            now = ids[0] if ids else None
            suspected = None
            if len(ids) > 1:
                suspected = self._suspected(name, outcome, now, on_demand=False)
            if suspected is None and on_demand:
                suspected = self._suspected(name, outcome, now, on_demand=True)
            if suspected is not None:
                found.append(asdict(self._checked(*suspected, outcome, source, number)))
        return tuple(found)

    def repeated(self, said: Mapping[str, Any], outcome: Outcome, source: Source) -> dict[str, Any]:
        """The finding to which the ledger leads, for one that a report has."""
        suspected = self._suspected(said["model"], outcome, said["now"], said["on_demand"])
        if suspected is None:
            return {}
        if said["why"]:
            return asdict(replace(suspected[0], why=said["why"]))
        return asdict(self._compared(*suspected, outcome, source))

    def _models(self, outcome: Outcome) -> list[str]:
        """Those on whose answers rows rest, and that can be compared."""
        models = outcome.profile.problem.models
        return [
            model.name
            for position, model in enumerate(models)
            if recheck_name(model.name) in self._exchange.book.tallies
            and (position == 0 or (outcome.answered_by == position).any())
        ]

    def _reference(self, outcome: Outcome) -> str:
        return outcome.profile.problem.reference.name

    def _number(self, name: str) -> int:
        return self._store.identity(name, self._exchange.identity_of(name))

    def _suspected(
        self, name: str, outcome: Outcome, now: str | None, on_demand: bool
    ) -> tuple[Finding, IntArray] | None:
        """What is to be compared: answers that `now` did not give, or on demand earlier ones.

        All that the procedure has seen, also where rows carry another's: a candidate was judged by
        its answers to rows that the reference then answered.
        """
        prompts = np.flatnonzero(outcome.profile.codes(name) >= 0)
        keys = self._exchange.keys(name, prompts.tolist())
        origins = served.origins(self._store, self._number(name), keys)
        found = [origins.get(key) for key in keys]
        others = [o.served_by if o and o.served_by != now else None for o in found]
        if on_demand:
            mine = np.array([o is not None and o.run != self._run for o in found], dtype=np.bool_)
        else:
            mine = np.array([other is not None for other in others], dtype=np.bool_)
        prompts = prompts[mine]
        if not prompts.size:
            return None
        then = dict(sorted(Counter(filter(None, others)).items()))
        role = "reference" if name == self._reference(outcome) else "candidate"
        return Finding(name, role, now, then, int(prompts.size), on_demand), prompts

    def _checked(
        self,
        finding: Finding,
        prompts: IntArray,
        outcome: Outcome,
        source: Source | None,
        number: int,
    ) -> Finding:
        """The finding, with what the model says now to a sample of the prompts."""
        again = recheck_name(finding.model)
        identity = f"{self._exchange.identity_of(finding.model)} rechecked as {finding.now}"
        if self._on_demand is not None and finding.role == "reference":
            identity += f", time {self._on_demand}"
        self._exchange.identities[again] = identity
        if source is None:
            return replace(finding, why="the budget was used up")
        try:
            finding = self._compared(finding, prompts, outcome, source)
        except BudgetError as error:
            return replace(finding, why=str(error))
        said = sorted(self._exchange.book.tallies[again].served_by)
        served.saw(self._store, number, said)
        if finding.on_demand and said and said[-1] != finding.now:
            # that it has changed is news: the earlier answers are those of another id
            news = self._suspected(finding.model, outcome, said[-1], on_demand=True)
            finding = replace(finding, now=said[-1], then=news[0].then if news else {})
        return finding

    def _compared(
        self, finding: Finding, prompts: IntArray, outcome: Outcome, source: Source
    ) -> Finding:
        """Ask the model again about a sample, or find what it said in the ledger."""
        profile, again = outcome.profile, recheck_name(finding.model)
        sample = drawn(profile, prompts, SAMPLE)
        same = compared(profile, source, finding.model, again, sample)["same"]
        tally = self._exchange.book.tallies[again]
        answered = tally.calls + tally.cached
        failed = int(sample.size) - answered
        finding = replace(finding, asked=int(sample.size), same=same, failed=failed)
        if not answered:
            return finding
        delta = profile.problem.requirement.delta
        return replace(finding, **verdict(finding.answers, answered, same, delta)._asdict())


def drawn(profile: Profile, prompts: IntArray, n: int) -> IntArray:
    """Up to `n` of these prompts at random, by their places in the secret order; ascending."""
    population = profile.problem.population
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([population.entropy, 3])))
    placed = prompts[np.argsort(population.first[prompts])]
    return np.sort(placed[rng.permutation(placed.size)[:n]])
