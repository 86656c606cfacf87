"""Materials: what of earlier answers goes into the prompts of further calls.

They are texts, made from stored answers alone, so that with the digest of the cell they are the
key under which the further call's answer is kept, and a report can be checked without the cells.

Source: Data Shunt+ (arXiv 2406.15471), prompt pruning and prompt transferring; AutoMix (arXiv
2310.12963), self-verification. The sentences are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smartsql.calls.recipes import FEWEST_LABELS, Recipe
from smartsql.types import FloatArray, IntArray

if TYPE_CHECKING:
    from smartsql.gateway import Attempt
    from smartsql.ledger import Stored
    from smartsql.tasks import Task

MOST_NAMED = 12
"""Labels whose probabilities a hint gives."""
LEAST_NAMED = 0.005
LONGEST_QUOTE = 1000
"""Characters of an open answer in a hint."""

Material = tuple[str, ...]


class Hints:
    """What a model that gives hints knows of the labels.

    Args:
        labels: of the task.

    Attributes:
        scores: probability of each label, NaN where unknown; shape (n_prompts, n_labels).
        confidence: of the answer, NaN where unknown; shape (n_prompts,).
    """

    def __init__(self, n_prompts: int, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.scores: NDArray[np.float64] = np.full((n_prompts, len(labels)), np.nan)
        self.confidence: FloatArray = np.full(n_prompts, np.nan)

    def add(self, prompts: Sequence[int], answers: Sequence[Stored | Attempt]) -> None:
        """Keep what answers say."""
        for prompt, answer in zip(prompts, answers, strict=True):
            if answer.confidence is not None:
                self.confidence[prompt] = answer.confidence
            if answer.scores is not None:
                given = answer.scores
                self.scores[prompt] = [given.get(label, np.nan) for label in self.labels]

    def sentence(self, prompt: int, answer: str, who: str) -> str:
        """What a prompt says of it: probabilities of labels, of the answer, or the answer."""
        scores = self.scores[prompt]
        if self.labels and not np.isnan(scores).any():
            order = sorted(range(len(self.labels)), key=lambda i: (-scores[i], i))
            named = [i for i in order if scores[i] >= LEAST_NAMED][:MOST_NAMED]
            said = ", ".join(f'"{self.labels[i]}" {scores[i]:.0%}' for i in named)
            return f"{who} smaller model gives the answers these probabilities: {said}."
        said = f'{who} smaller model answered "{answer[:LONGEST_QUOTE]}"'
        confidence = self.confidence[prompt]
        return said + ("." if np.isnan(confidence) else f", {confidence:.0%} sure.")


def remaining(hints: Sequence[Hints], prompt: int, prune_below: float) -> Material:
    """The labels that no hint rules out; the likeliest where fewer than two would stay.

    A label is ruled out when every hint knows its probability and finds it too low.
    """
    labels = hints[0].labels
    scores = np.array([hint.scores[prompt] for hint in hints])
    if np.isnan(scores).any():
        return labels
    best = scores.max(axis=0)
    kept = {i for i in range(len(labels)) if best[i] >= prune_below}
    likely = sorted(range(len(labels)), key=lambda i: (-best[i], i))
    if len(kept) < FEWEST_LABELS:
        kept = set(likely[:FEWEST_LABELS])
    return tuple(label for i, label in enumerate(labels) if i in kept)


def materials(
    recipe: Recipe,
    prompts: IntArray,
    known: Mapping[str, Hints],
    answers_of: Callable[[str, IntArray], list[str]],
) -> list[Material]:
    """What goes into the prompt of a recipe, for prompts whose prerequisites are answered.

    Args:
        known: what is known of the labels, by models that give hints.
        answers_of: the texts that a model answered to prompts.
    """
    if not recipe.after:
        return [()] * prompts.size
    if recipe.kind == "hard":
        hints = [known[name] for name in recipe.after]
        return [remaining(hints, p, recipe.prune_below) for p in prompts.tolist()]
    said = [answers_of(name, prompts) for name in recipe.after]
    if recipe.kind != "soft":
        return list(zip(*said, strict=True))
    spoken = []
    for number, (name, answers) in enumerate(zip(recipe.after, said, strict=True)):
        hint, who = known[name], "Another" if number else "A"
        pairs = zip(prompts.tolist(), answers, strict=True)
        spoken.append([hint.sentence(prompt, answer, who) for prompt, answer in pairs])
    return list(zip(*spoken, strict=True))


def example(recipe: Recipe, task: Task) -> Material:
    """Material of a usual length, to estimate what a call costs before any answer is known."""
    answer = max(task.labels, key=len, default="an answer of some words")
    if recipe.kind == "hard":
        return task.labels
    if recipe.kind == "soft" and task.labels:
        said = ", ".join(f'"{label}" 50%' for label in task.labels[:MOST_NAMED])
        answer = f"A smaller model gives the answers these probabilities: {said}."
    return tuple(answer for _ in recipe.after)
