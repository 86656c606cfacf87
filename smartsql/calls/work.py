"""A call before anything is asked: its rows in canonical order, its models, its unit of cost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from smartsql.calls.cells import Cells
from smartsql.calls.materials import example
from smartsql.calls.recipes import Recipe, recipes_of
from smartsql.calls.typed import form_of
from smartsql.errors import ConfigError
from smartsql.features import features
from smartsql.gateway import Backend, Request
from smartsql.policies.eligible import eligible
from smartsql.population import Population, as_halves, digest, digests
from smartsql.profile import Features, Problem
from smartsql.tasks import Task
from smartsql.templates import repeat_name
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
        recipes: how calls are made: the reference, candidates, verifiers, others.
        expected_costs: of one prompt of each.
        identities: under which the answers of each are kept.
        learning: names of candidates that learn.
        unit: "usd", or "s" where the reference has no price.
        notes: sentences for the report.
    """

    requirement: Requirement
    cells: Cells
    prompts: bytes
    order: IntArray
    weights: IntArray
    recipes: tuple[Recipe, ...]
    expected_costs: tuple[float, ...]
    identities: tuple[str, ...]
    learning: frozenset[str]
    unit: str
    notes: tuple[str, ...]

    @property
    def models(self) -> tuple[Candidate, ...]:
        """The reference, then the candidates: those whose answers rows may carry."""
        return self._made("reference", "candidate")

    def _made(self, *roles: str) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(recipe.name, cost, recipe.name in self.learning, recipe.after)
            for recipe, cost in zip(self.recipes, self.expected_costs, strict=True)
            if recipe.role in roles
        )

    def problem(self, seed: int, features: Features | None = None) -> Problem:
        """The problem a policy solves, with the rows in the order of `seed`."""
        halves = np.frombuffer(self.prompts, dtype=">u8").astype(np.uint64)
        population = Population.shuffled(halves, self.weights, seed)
        reference, *candidates = self.models
        return Problem(
            self.requirement,
            population,
            reference,
            tuple(candidates),
            self._made("verifier"),
            features,
            self._made("step", "repeat"),
        )

    def features(self) -> Features | None:
        """Figures about the cells' texts; None where no candidate may answer anyway."""
        usable, _ = eligible(self.problem(0))
        return features(self.cells.texts) if usable else None

    def at_costs(self, expected_costs: Sequence[float]) -> Work:
        """The same call with other estimates of what a prompt of each recipe costs."""
        return replace(self, expected_costs=tuple(expected_costs))

    def with_repeats(self) -> Work:
        """The same call, in which the reference may also be asked again."""
        reference = self.recipes[0].name
        again = Recipe(repeat_name(reference), reference, "repeat")
        return replace(
            self,
            recipes=(*self.recipes, again),
            expected_costs=(*self.expected_costs, self.expected_costs[0]),
            identities=(*self.identities, f"{self.identities[0]} again"),
        )

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
        built = [recipe.facts() for recipe in self.recipes if recipe.is_derived]
        if built:
            parts = (*parts, repr(built))  # type: ignore[assignment]
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
    recipes, notes = recipes_of(models, task)
    kinds = {model.name: model.kind for model in models}
    unit = "s" if backends[recipes[0].backend].price.is_free else "usd"
    if unit == "s":
        recipes, dear = _free(recipes, backends)
        notes += dear
    return Work(
        requirement,
        cells,
        b"".join(canonical),
        order,
        weights[order],
        tuple(recipes),
        _expected_costs(cells, recipes, backends, unit),
        tuple(_identities(recipes, backends, kinds, task)),
        frozenset(name for name, kind in kinds.items() if kind == "learned"),
        unit,
        tuple(notes),
    )


def identity_of(backend: Backend, kind: str, task: Task) -> str:
    """Everything but the prompt that may change a model's answer.

    Models that read the cell itself may answer differently where two templates render to the
    same prompt, so the template is part of theirs.
    """
    identity = typed_identity(backend.identity(task.labels), task)
    if kind in ("python", "learned") and task.template is not None:
        # in calls whose answers have a type, functions once were told the cell alone
        told = " told the question" if kind == "python" and task.kind != "llm" else ""
        return f"{identity} in {digest(task.template).hex()}{told}"
    return identity


def typed_identity(of_backend: str, task: Task) -> str:
    """The identity of a model that is asked for an answer with a type.

    What the call says (question, labels, structure) may be enforced and not only asked for, so it
    is part of it: another question never meets the answers to this one.
    """
    if task.kind == "llm":
        return of_backend
    return f"{of_backend} as {task.kind} {digest(task.options).hex()}"


def _identities(
    recipes: Sequence[Recipe],
    backends: Mapping[str, Backend],
    kinds: Mapping[str, str],
    task: Task,
) -> list[str]:
    """The identity of each recipe.

    Raises:
        ConfigError: two have the same, so that they are one and the same model.
    """
    by_name = {recipe.name: recipe for recipe in recipes}

    def identity(recipe: Recipe) -> str:
        backend = backends[recipe.backend]
        if not recipe.is_derived:
            return identity_of(backend, kinds[recipe.backend], task)
        labels = recipe.labels if recipe.role in ("verifier", "step") else task.labels
        earlier = [identity(by_name[name]) for name in recipe.after]
        own = backend.identity(labels)
        if recipe.answers_rows:
            own = typed_identity(own, task)
        return recipe.identity(own, task, earlier)

    found: dict[str, str] = {}
    for recipe in recipes:
        name = found.setdefault(identity(recipe), recipe.name)
        if name != recipe.name:
            repeats = " To see how often a reference repeats itself, set self_agreement = N."
            raise ConfigError(
                f"{name!r} and {recipe.name!r} are one and the same: the same model, asked the "
                f"same with the same parameters. Its answers are kept, and paid for, once. Remove "
                f"one of them." + (repeats if name == recipes[0].name else "")
            )
    return list(found)


def _free(
    recipes: Sequence[Recipe], backends: Mapping[str, Backend]
) -> tuple[list[Recipe], list[str]]:
    """Where the reference has no price: the recipes without one either, and notes on the others.

    Cost is then measured in seconds, unknown before the first call.
    """
    by_name = {recipe.name: recipe for recipe in recipes}

    def is_free(recipe: Recipe) -> bool:
        before = all(is_free(by_name[name]) for name in recipe.after if name in by_name)
        return before and backends[recipe.backend].price.is_free

    notes = [
        f"{recipe.name} is never used: it costs money and the reference does not."
        for recipe in recipes
        if recipe.role == "candidate" and not is_free(recipe)
    ]
    return [recipe for recipe in recipes if is_free(recipe)], notes


def _expected_costs(
    cells: Cells, recipes: Sequence[Recipe], backends: Mapping[str, Backend], unit: str
) -> tuple[float, ...]:
    """What a prompt of each recipe may cost, by the prompts of some cells."""
    if unit == "s":
        return tuple(1.0 if recipe.role == "reference" else 0.0 for recipe in recipes)
    return tuple(_expected_usd(cells, recipe, backends[recipe.backend]) for recipe in recipes)


def _expected_usd(cells: Cells, recipe: Recipe, backend: Backend) -> float:
    texts = cells.texts.slice(0, SAMPLE).to_pylist()
    material = example(recipe, cells.task)
    form = form_of(cells.task, cells.task.labels) if recipe.answers_rows else None
    requests = (
        Request(i, t, recipe.prompt(cells.task, t, material), form) for i, t in enumerate(texts)
    )
    return recipe.samples * sum(map(backend.expected_cost_usd, requests)) / max(len(texts), 1)


def rows_digest(prompts: bytes, weights: IntArray) -> str:
    """Digest of canonical prompts (16 bytes each) and their weights."""
    total = hashlib.blake2b(prompts, digest_size=16)
    total.update(np.ascontiguousarray(weights, dtype="<i8").tobytes())
    return total.hexdigest()


def answers_digest(answered_by: IntArray) -> str:
    """Digest of who answers each canonical prompt."""
    raw = np.ascontiguousarray(answered_by, dtype="<i2").tobytes()
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
