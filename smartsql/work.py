"""A call before anything is asked: its rows in canonical order, its models, its unit of cost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from smartsql.book import Cells
from smartsql.gateway import Backend, Request
from smartsql.population import Population, as_halves, digest, digests
from smartsql.profile import Problem
from smartsql.tasks import Task
from smartsql.types import Candidate, IntArray, Requirement

if TYPE_CHECKING:
    from smartsql.config import Model

SAMPLE = 200
"""Prompts whose length stands for all when costs are estimated before any call."""


@dataclass(frozen=True, slots=True)
class Work:
    """A call before anything is asked.

    Attributes:
        prompts: the cells' digests, joined.
        order: for each canonical prompt its position in the order prompts were given.
        weights: rows for each canonical prompt.
        models: the reference, then the candidates.
        identities: under which their answers are kept.
        unit: "usd", or "s" where the reference has no price.
        notes: sentences for the report.
    """

    requirement: Requirement
    cells: Cells
    prompts: bytes
    order: IntArray
    weights: IntArray
    models: tuple[Candidate, ...]
    identities: tuple[str, ...]
    unit: str
    notes: tuple[str, ...]

    def problem(self, seed: int) -> Problem:
        """The problem a policy solves, with the rows in the order of `seed`."""
        halves = np.frombuffer(self.prompts, dtype=">u8").astype(np.uint64)
        population = Population.shuffled(halves, self.weights, seed)
        return Problem(self.requirement, population, self.models[0], self.models[1:])

    def at_costs(self, expected_costs: Sequence[float]) -> Work:
        """The same call with other estimates of what a call of each model costs."""
        models = tuple(
            replace(model, expected_cost=cost)
            for model, cost in zip(self.models, expected_costs, strict=True)
        )
        return replace(self, models=models)

    def key(self, policy: str, seed: int | None) -> bytes:
        """Key of the statement: equal for the same rows, promise, task, models and policy."""
        task = self.cells.task
        parts = (
            rows_digest(self.prompts, self.weights),
            (self.requirement.delta, self.requirement.gamma),
            (task.labels, task.equal),
            (self.unit, policy, seed),
            self.identities,
        )
        return digest(repr(parts))


def prepare(
    requirement: Requirement,
    task: Task,
    prompts: pa.Array,
    weights: IntArray,
    models: Sequence[Model],
    backends: Mapping[str, Backend],
) -> Work:
    """Put the distinct cells of a call in canonical order and estimate what calls cost."""
    given = digests(task.rendered(prompts.to_pylist()))
    halves = as_halves(given)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    canonical = [given[i] for i in order.tolist()]
    cells = Cells(prompts.take(pa.array(order)), task, canonical)
    candidates, unit, notes = _candidates(cells, models, backends)
    kinds = {model.name: model.kind for model in models}
    identities = tuple(
        identity_of(backends[model.name], kinds[model.name], task) for model in candidates
    )
    joined = b"".join(canonical)
    return Work(
        requirement, cells, joined, order, weights[order], candidates, identities, unit, notes
    )


def identity_of(backend: Backend, kind: str, task: Task) -> str:
    """Everything but the prompt that may change a model's answer.

    Models that read the cell itself may answer differently where two templates render to the
    same prompt, so the template is part of theirs.
    """
    identity = backend.identity(task.labels)
    if kind in ("python", "learned") and task.template is not None:
        return f"{identity} in {digest(task.template).hex()}"
    return identity


def _candidates(
    cells: Cells, models: Sequence[Model], backends: Mapping[str, Backend]
) -> tuple[tuple[Candidate, ...], str, tuple[str, ...]]:
    """The models as policies see them, reference first; the unit of cost; notes."""
    reference = next(model.name for model in models if model.reference)
    texts = cells.texts.slice(0, SAMPLE).to_pylist()
    requests = [Request(i, text, cells.task.render(text)) for i, text in enumerate(texts)]

    def expected_usd(name: str) -> float:
        return sum(map(backends[name].expected_cost_usd, requests)) / max(len(requests), 1)

    if not backends[reference].price.is_free:
        others = [m for m in models if not m.reference]
        found = [Candidate(m.name, expected_usd(m.name), m.kind == "learned") for m in others]
        return (Candidate(reference, expected_usd(reference)), *found), "usd", ()
    # a reference without a price: cost is measured seconds, unknown before the first call
    found, notes = [], []
    for model in models:
        if backends[model.name].price.is_free and not model.reference:
            found.append(Candidate(model.name, 0.0, model.kind == "learned"))
        elif not model.reference:
            notes.append(f"{model.name} is never used: it costs money and the reference does not.")
    return (Candidate(reference, 1.0), *found), "s", tuple(notes)


def rows_digest(prompts: bytes, weights: IntArray) -> str:
    """Digest of canonical prompts (16 bytes each) and their weights."""
    total = hashlib.blake2b(prompts, digest_size=16)
    total.update(np.ascontiguousarray(weights, dtype="<i8").tobytes())
    return total.hexdigest()


def answers_digest(answered_by: IntArray) -> str:
    """Digest of who answers each canonical prompt."""
    raw = np.ascontiguousarray(answered_by, dtype="<i2").tobytes()
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
