"""Recipes: of what the calls of each name consist, beyond the cell.

Most models are asked the task's prompt as it stands. Some calls build on answers that come before
them, in the manner of three published systems:

* a verifier judges the answer of one model (AutoMix, arXiv 2310.12963, self-verification);
* a hinted model sees what smaller models think of the labels, or fewer labels to choose from
  (Data Shunt+, arXiv 2406.15471, prompt pruning, soft and hard);
* a model that uses steps sees the answers to simpler questions (the same, prompt transferring).

Another prompt is another function, so none of them is ever the reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from smartsql.calls.verification import (
    EXAMPLES,
    INSTRUCTION,
    SHORTEST,
    VERDICTS,
    longest_prompt,
    verification_prompt,
)
from smartsql.population import digest
from smartsql.tasks import Equality, Task
from smartsql.templates import fill, placeholders, step_name, verifier_name

if TYPE_CHECKING:
    from smartsql.config import Model

Role = Literal["reference", "candidate", "verifier", "step", "repeat"]
Kind = Literal["plain", "verification", "soft", "hard", "steps"]

DEFAULT_TEMPLATES = {
    "soft": "{hints}\n\n{prompt}",
    "hard": "Only these answers are possible: {labels}.\n\n{prompt}",
    "steps": "{steps}\n\n{prompt}",
}
VERIFICATION_WORDS = digest(repr((INSTRUCTION, EXAMPLES))).hex()
FEWEST_LABELS = 2
"""Labels that hard pruning leaves."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the calls of one name are made and read.

    Attributes:
        name: under which policies, ledger and reports know them.
        backend: name of the model that is asked.
        role: "step" and "repeat" (the reference again) answer no row, nor does a "verifier".
        kind: what of earlier answers goes into the prompt: nothing, an answer to be judged, hints
            in words, the labels that are left, or answers to steps.
        after: names whose answers go into it.
        template: of the prompt; None for the task's own.
        labels, equal: how a step's answers are read; those of the task otherwise.
        samples: calls for each prompt.
        prune_below: labels with less probability are left out (hard).
        longest: characters of a verification prompt.
    """

    name: str
    backend: str
    role: Role
    kind: Kind = "plain"
    after: tuple[str, ...] = ()
    template: str | None = None
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"
    samples: int = 1
    prune_below: float = 0.0
    longest: int = SHORTEST

    @property
    def answers_rows(self) -> bool:
        """Whether a row may carry its answer."""
        return self.role in ("reference", "candidate")

    @property
    def is_derived(self) -> bool:
        """Whether its prompt is not the task's own."""
        return self.kind != "plain" or self.role == "step"

    def task(self, task: Task) -> Task:
        """The task by which its answers are read."""
        return Task(self.name, None, self.labels, self.equal) if self.role == "step" else task

    def prompt(self, task: Task, cell: str, material: Sequence[str]) -> str:
        """The prompt for a cell.

        The cell and earlier answers are data: they are put in at once, never formatted.

        Args:
            material: what goes in of earlier answers; see `smartsql.calls.materials`.
        """
        if self.kind == "verification":
            return verification_prompt(task, cell, material[0], self.longest)
        if not self.is_derived:
            return task.render(cell)
        assert self.template is not None
        labels = material if self.kind == "hard" else task.labels
        values = {
            "input": cell,
            "prompt": task.render(cell),
            "hints": "\n".join(material),
            "labels": ", ".join(labels),
        }
        if self.kind == "steps":
            named = {_short(name): said for name, said in zip(self.after, material, strict=True)}
            values |= named | {"steps": "\n".join(f"{k}: {v}" for k, v in named.items())}
        return fill(self.template, values)

    def identity(self, of_backend: str, task: Task, earlier: Sequence[str] = ()) -> str:
        """Everything but cell and earlier answers that may change an answer.

        Args:
            of_backend: the identity of the model that is asked.
            earlier: the identities under which the answers that go in are kept, one for each of
                `after`. Two models that take hints from different ones are two.
        """
        settings = {**asdict(self), "name": None, "backend": None, "after": None, "role": None}
        words = VERIFICATION_WORDS if self.kind == "verification" else ""
        # a prompt shows the names of steps, and of the others only what they said
        shown = [_short(name) for name in self.after] if self.kind == "steps" else []
        parts = [settings, digest(task.template).hex() if task.template else None, words, shown]
        text = f"{of_backend} asked as {json.dumps(parts, sort_keys=True, ensure_ascii=False)}"
        return f"{text} about answers of {digest(repr(tuple(earlier))).hex()}" if earlier else text

    def facts(self) -> dict[str, Any]:
        """JSON-able: what is needed to take decisions again from the ledger."""
        return {**asdict(self), "template": None}

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> Recipe:
        """What `facts` was made of, but for the template, which is part of the identity.

        Raises:
            ValueError: these are no such facts.
        """
        try:
            lists = {key: tuple(facts[key]) for key in ("after", "labels")}
            return Recipe(**{**facts, **lists})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the facts of a recipe: {error}") from error


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def recipes_of(models: Sequence[Model], task: Task) -> tuple[list[Recipe], list[str]]:
    """The recipes of a call: reference, candidates, their verifiers, the steps they use; notes."""
    reference = next(model for model in models if model.reference)
    found = [Recipe(reference.name, reference.name, "reference")]
    notes: list[str] = []
    for model in models:
        if not model.reference:
            made = _candidate(model, task)
            if isinstance(made, str):
                notes.append(f"{model.name} was not used: {made}.")
            else:
                found.append(made)
    judged = {recipe.name for recipe in found}
    found += [_verifier(m) for m in models if m.verification and m.name in judged]
    if any(recipe.kind == "steps" for recipe in found):
        found += _steps(task)
    return found, notes


def _candidate(model: Model, task: Task) -> Recipe | str:
    """The recipe of a model that may answer, or why it cannot answer this task."""
    kind: Kind = model.pruning if model.hints else "steps" if model.uses_steps else "plain"
    if kind == "plain":
        return Recipe(model.name, model.name, "candidate")
    after = model.hints
    if kind == "steps":
        if not task.steps:
            return "it uses steps, and the task has none"
        after = tuple(step_name(task.name, step.name) for step in task.steps)
        own = placeholders(model.prompt or "{steps}", ("steps", *(s.name for s in task.steps)))
        if not own:
            return "its prompt names no step of this task"
    if kind == "hard" and len(task.labels) <= FEWEST_LABELS:
        return f"hard pruning leaves {FEWEST_LABELS} labels, and the task has {len(task.labels)}"
    template = DEFAULT_TEMPLATES[kind] if model.prompt is None else model.prompt
    prune_below = model.prune_below if kind == "hard" else 0.0
    return Recipe(
        model.name, model.name, "candidate", kind, after, template, prune_below=prune_below
    )


def _verifier(model: Model) -> Recipe:
    name = verifier_name(model.name)
    samples = model.verification if isinstance(model.verification, int) else 1
    return Recipe(
        name,
        name,
        "verifier",
        "verification",
        (model.name,),
        samples=samples,
        # by one call with a probability, or by what each sample says
        labels=() if isinstance(model.verification, int) else VERDICTS,
        longest=longest_prompt(model.kind, model.parameters),
    )


def _steps(task: Task) -> list[Recipe]:
    """The steps of a task; one may build upon those before it."""
    found: list[Recipe] = []
    for step in task.steps:
        earlier = {_short(recipe.name): recipe.name for recipe in found}
        used = placeholders(step.template, tuple(earlier))
        found.append(
            Recipe(
                step_name(task.name, step.name),
                step.model,
                "step",
                "steps" if used else "plain",
                tuple(earlier[name] for name in earlier if name in used),
                step.template,
                step.labels,
                step.equal,
            )
        )
    return found
