"""Tokens, money and seconds of a call, before a model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.calls.materials import example
from smartsql.calls.recipes import Recipe
from smartsql.calls.typed import form_of
from smartsql.calls.work import SAMPLE, Work
from smartsql.gateway import Backend, Request
from smartsql.ledger import Ledger
from smartsql.preview.history import usual_share
from smartsql.reports.report import counted, format_cost

if TYPE_CHECKING:
    from smartsql.preview.reckoning import Reckoning

Total = tuple[str, int, int, int, float, float]
"""A row of `Ledger.totals`."""

UNKNOWN_LATENCY_S = 1.0
"""Seconds of a call to a model over the network that was never called."""
USUAL_ANSWER_TOKENS = 16
"""Tokens of an answer where nothing is known of a model's answers."""
ENOUGH_CALLS = 20
"""Calls after which the mean length of a model's answers is believed."""


@dataclass(frozen=True, slots=True)
class ModelPreview:
    """What is known of one model before a call.

    Attributes:
        paid: prompts of this call that it has answered already.
        prompt_tokens, completion_tokens: of all prompts that it has not answered yet, estimated.
        calls: at least, expected, at most; what is paid for already is no call.
        cost_per_call: estimate, in the unit of the preview; None where it is not known.
    """

    name: str
    role: str
    price: str
    paid: int
    prompt_tokens: int
    completion_tokens: int
    calls: tuple[int, int, int]
    cost_per_call: float | None

    def __str__(self) -> str:
        paid = f", {counted(self.paid, 'answer')} paid for earlier" if self.paid else ""
        low, expected, high = self.calls
        span = f" ({low:,} to {high:,})" if low != high else ""
        return (
            f"{self.role} {self.name}: about {counted(expected, 'call')}{span}{paid}; on "
            f"all that is unpaid {self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out; "
            f"{self.price}"
        )


@dataclass(frozen=True, slots=True)
class Preview:
    """What a call would cost; `low`, `expected`, `high` and `reference_spend` are in `unit`.

    They are None where nothing is known yet (a model without a price that never ran). Lengths of
    answers, and with them all money, are estimates until a model has answered.

    Attributes:
        low: spent if a candidate agrees on all rows; `high` if candidates are asked in vain.
        reference_spend: what the reference alone would cost on all prompts.
        seconds: expected wall time; `seconds_low` and `seconds_high` like the money.
        at_most: which rows there are depends on answers: these are all that may be.
        runs: earlier runs of the task with these models by which `expected` was made.
    """

    call: str
    rows: int
    prompts: int
    delta: float
    gamma: float
    unit: str
    low: float | None
    expected: float | None
    high: float | None
    reference_spend: float | None
    seconds: float | None
    models: tuple[ModelPreview, ...]
    seconds_low: float | None = None
    seconds_high: float | None = None
    at_most: bool = False
    runs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        """The preview for people."""
        most = "at most " if self.at_most else ""
        lines = [
            f"{self.call}: {most}{counted(self.rows, 'row')}, "
            f"{most}{counted(self.prompts, 'distinct prompt')}, "
            f"delta {self.delta:g}, gamma {self.gamma:g}",
            f"  {self._money()}",
        ]
        if self.seconds is not None and self.seconds_low is not None:
            lines.append(f"  {self._time()}")
        return "\n".join([*lines, *(f"  {model}" for model in self.models)])

    def _time(self) -> str:
        """How long it takes; nobody plans by parts of a second."""
        seconds = [self.seconds_low or 0.0, self.seconds or 0.0, self.seconds_high or 0.0]
        if max(seconds) < 1:
            return "less than a second"
        low, usual, high = (f"{value:,.0f}" for value in seconds)
        return f"about {usual} s" + (f", between {low} and {high}" if low != high else "")

    def _money(self) -> str:
        if self.expected is None or self.low is None or self.high is None:
            return "cost is unknown until the models have run once (they have no price)"
        money = [format_cost(v, self.unit) for v in (self.low, self.expected, self.high)]
        between = f", between {money[0]} and {money[2]}" if money[0] != money[2] else ""
        reference = format_cost(self.reference_spend or 0.0, self.unit)
        past = f"; by {counted(self.runs, 'earlier run')}" if self.runs else ""
        return f"expected {money[1]}{between} (reference only: {reference}{past})"


def preview(
    call: str,
    work: Work,
    backends: Mapping[str, Backend],
    store: Ledger,
    *,
    key: bytes,
    at_once: Mapping[str, int],
    again: int = 0,
    at_most: bool = False,
) -> Preview:
    """Estimate a call; reads the ledger, asks no model.

    Args:
        call: the call's text.
        key: of the statement; one that was answered takes the same decisions again, for nothing.
        at_once: calls in flight by model.
        again: prompts about which the reference is asked twice, to see if it repeats itself.
        at_most: the rows are an upper bound.
    """
    facts = _Facts(work, backends, {row[0]: row for row in store.totals()}, store)
    n = len(work.cells.digests)
    models = facts.models(min(again, n))
    blank = Preview(
        call,
        int(work.weights.sum()),
        n,
        work.requirement.delta,
        work.requirement.gamma,
        work.unit,
        *(None, None, None, None, None),
        tuple(models),
        at_most=at_most,
    )
    if models[0].cost_per_call is None:
        return blank
    return _priced(blank, work, facts, None if store.has_report(key) else store, at_once)


def _priced(
    blank: Preview,
    work: Work,
    facts: _Facts,
    store: Ledger | None,
    at_once: Mapping[str, int],
) -> Preview:
    """A preview with calls, money and seconds; `store` is None where all is paid for."""
    from smartsql.preview.reckoning import MOST, ROUNDS, reckon

    n, models = blank.prompts, blank.models
    prices = {m.name: m.cost_per_call or 0.0 for m in models}
    reference = models[0]
    everything = prices[reference.name] * n
    reckoning = reckon(work.at_costs([prices[m.name] for m in models]).problem(0))
    counted = tuple(
        replace(m, calls=_open_calls(m, n, reckoning, answered=store is None)) for m in models
    )
    if blank.at_most:  # there may be no row at all
        counted = tuple(replace(m, calls=(0, *m.calls[1:])) for m in counted)
    low, expected, high = (
        sum(m.calls[case] * prices[m.name] for m in counted) for case in range(3)
    )
    repeats = sum(m.calls[1] * prices[m.name] for m in counted if m.role == "repeat")
    high = min(high, MOST * everything + repeats)
    share, runs = usual_share(store, work) if store is not None and low < high else (0.0, 0)
    if runs:
        unpaid = sum(m.paid * prices[m.name] for m in counted)
        expected = min(max(low, share * everything - unpaid + repeats), high)
    seconds = [_seconds(counted, facts.totals, at_once, case, ROUNDS[case]) for case in range(3)]
    return replace(
        blank,
        low=low,
        expected=expected,
        high=high,
        reference_spend=everything,
        seconds=seconds[1],
        seconds_low=seconds[0],
        seconds_high=seconds[2],
        models=counted,
        runs=runs,
    )


def _open_calls(
    model: ModelPreview, n: int, reckoning: Reckoning, *, answered: bool
) -> tuple[int, int, int]:
    """Calls of a model that are not paid for: at least, expected, at most."""
    if model.role == "repeat":
        return model.calls
    if answered:
        return 0, 0, 0
    low, expected, high = (case.by_model.get(model.name, 0.0) for case in reckoning.cases)
    open_share = 1 - model.paid / max(n, 1)
    return (
        int(max(0.0, low - model.paid)),
        round(expected * open_share),
        int(np.ceil(min(high, n - model.paid))),
    )


class _Facts:
    """Prices and lengths of the calls of one statement."""

    def __init__(
        self,
        work: Work,
        backends: Mapping[str, Backend],
        totals: Mapping[str, Total],
        store: Ledger,
    ) -> None:
        self.work, self.backends, self.totals, self.store = work, backends, totals, store

    def models(self, again: int) -> list[ModelPreview]:
        """The models of the call; the reference's repeats are `again` calls."""
        return [
            self._model(position, recipe, again)
            for position, recipe in enumerate(self.work.recipes)
        ]

    def _model(self, position: int, recipe: Recipe, again: int) -> ModelPreview:
        work, backend = self.work, self.backends[recipe.backend]
        n = len(work.cells.digests)
        paid = 0
        if not recipe.is_derived:  # keys of others depend on answers that may not be known yet
            identity = self.store.identity(recipe.name, work.identities[position])
            paid = len(self.store.lookup(identity, work.cells.digests))
        asked = max(0, (again if recipe.role == "repeat" else n) - paid)
        sent, said = self._tokens(recipe, backend)
        _, calls, *_, seconds = self.totals.get(recipe.name, (recipe.name, 0, 0, 0, 0.0, 0.0))
        cost = work.expected_costs[position] + self._longer_answers(recipe, backend, said)
        measured = recipe.samples * seconds / calls if calls else None
        return ModelPreview(
            recipe.name,
            recipe.role,
            str(backend.price),
            paid,
            round(sent * asked),
            round(said * asked),
            (asked, asked, asked) if recipe.role == "repeat" else (0, 0, 0),
            max(cost, 0.0) if work.unit == "usd" else measured,
        )

    def _tokens(self, recipe: Recipe, backend: Backend) -> tuple[float, float]:
        """Tokens in and out of a call, all its samples."""
        task, texts = self.work.cells.task, self.work.cells.texts.slice(0, SAMPLE).to_pylist()
        material = example(recipe, task)
        form = form_of(task, task.labels) if recipe.answers_rows else None
        requests = [
            Request(i, text, recipe.prompt(task, text, material), form)
            for i, text in enumerate(texts)
        ]
        pairs = [_usual_tokens(backend, request) for request in requests]
        sent, said = np.mean(pairs, axis=0) if pairs else (0.0, 0.0)
        answers = self._answer_tokens(recipe)
        return recipe.samples * float(sent), recipe.samples * float(answers or said)

    def _answer_tokens(self, recipe: Recipe) -> float | None:
        """Mean length of the answers so far, None where there are too few."""
        name = recipe.backend if recipe.role == "repeat" else recipe.name
        _, calls, _, said, *_ = self.totals.get(name, (name, 0, 0, 0, 0.0, 0.0))
        return said / calls if calls >= ENOUGH_CALLS and said else None

    def _longer_answers(self, recipe: Recipe, backend: Backend, said: float) -> float:
        """What answers cost more than was assumed when nothing was known of them."""
        if self._answer_tokens(recipe) is None or not hasattr(backend, "expected_tokens"):
            return 0.0
        request = Request(0, "", "")
        assumed = recipe.samples * _usual_tokens(backend, request)[1]
        return (said - assumed) * backend.price.output_usd_per_mtok / 1e6


def _usual_tokens(backend: Backend, request: Request) -> tuple[float, float]:
    """Tokens in and out of a call; a model that meters its calls knows best."""
    metered = getattr(backend, "expected_tokens", None)
    if metered is not None:
        sent, said = metered(request)
        return float(sent), float(said)
    n_bytes = len(request.prompt.encode("utf-8", "surrogatepass"))
    return n_bytes / 4, 1.0 if backend.price.is_free else float(USUAL_ANSWER_TOKENS)


def _seconds(
    models: Sequence[ModelPreview],
    totals: Mapping[str, Total],
    at_once: Mapping[str, int],
    case: int,
    rounds: int,
) -> float | None:
    """Wall time of a case: models one after the other, at their mean latency so far."""
    spent = 0.0
    for model in models:
        calls, places = model.calls[case], at_once.get(model.name, max(at_once.values()))
        known = totals.get(model.name)
        if not calls:
            continue
        if known is None and places == 1:
            if model.role == "reference":
                return None  # computing in this process, never measured
            continue
        latency = known[5] / known[1] if known else UNKNOWN_LATENCY_S
        spent += np.ceil(calls / places) * latency
        if model.role == "reference" and len(models) > 1:
            spent += min(rounds, calls / places) * latency
    return float(spent)
