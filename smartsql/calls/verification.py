"""Self-verification: a model judges an answer of its own, and the verdict is evidence.

The model is shown a few judged answers, then the question and what was answered, and decides with
one word. Where the endpoint gives log probabilities one call tells the probability of "Correct";
else each of k samples at temperature 1 is a vote and the share of "Correct" is the confidence.
An endpoint that turns out to give no log probabilities is taken at its word: 1 or 0. A verdict
that cannot be read leaves the confidence unknown.

Source: AutoMix (arXiv 2310.12963), self-verification; the words and the examples are our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsql.types import FloatArray, IntArray

if TYPE_CHECKING:
    from smartsql.gateway import Attempt
    from smartsql.ledger import Stored
    from smartsql.tasks import Task

VERDICTS = ("Correct", "Incorrect")
"""What a verifier may say, right one first."""
LONGEST = 12_000
"""Characters of a verification prompt for a model behind an endpoint: about 4,000 tokens."""
SHORTEST = 600
CHARACTERS_PER_TOKEN = 2.5
"""A careful figure, for models whose context is known in tokens."""
CUT = "[...] "
"""Stands where a part of a long text was left out."""
HEAD = 400
"""Characters at the beginning of a prompt without a task that stay: the question may be there."""

INSTRUCTION = (
    "Check the proposed answers to the tasks below. Decide for each whether it is right, with one "
    "word: Correct or Incorrect.\n\n"
)
EXAMPLES = (
    ("What is 7 times 8?", "54", "Incorrect"),
    ('In which language is "Guten Morgen"?', "German", "Correct"),
    (
        "Is this text about sport or politics? The striker scored twice before half-time.",
        "politics",
        "Incorrect",
    ),
    ("In which year was the bridge opened? It has carried traffic since 1932.", "1932", "Correct"),
)


def verification_prompt(task: Task, cell: str, answer: str, longest: int) -> str:
    """The question whether an answer is right.

    A long one loses the examples first, oldest first, and then the beginning of the cell; the
    task's own words, the answer and the question stay. Where the cell is the whole prompt, its
    first words stay too.

    Args:
        longest: characters of the prompt, unless task and answer alone are longer.
    """
    end = f"\nAnswer: {answer}\nDecision:"
    shown = [f"Task: {q}\nAnswer: {a}\nDecision: {verdict}\n\n" for q, a, verdict in EXAMPLES]
    asked = f"Task: {task.render(cell)}"
    room = longest - len(INSTRUCTION) - len(asked) - len(end)
    while shown and sum(map(len, shown)) > room:
        shown.pop(0)
    if room < 0 and cell:
        times = max(1, (len(asked) - len("Task: ") - len(task.render(""))) // len(cell))
        kept = max(len(cell) + room // times - len(CUT), 0)
        head = "" if task.template else cell[: min(HEAD, kept // 2)]
        tail = cell[len(cell) - (kept - len(head)) :]
        asked = f"Task: {task.render(head + CUT + tail)}"
    return INSTRUCTION + "".join(shown) + asked + end


def longest_prompt(kind: str, parameters: Mapping[str, Any]) -> int:
    """Characters that a verification prompt for such a model may have."""
    if kind != "llama_cpp":
        return LONGEST
    from smartsql.gateway.llama_cpp import LlamaParameters

    n_ctx = LlamaParameters.of("", parameters).n_ctx
    return max(SHORTEST, min(LONGEST, int(n_ctx * CHARACTERS_PER_TOKEN)))


UNFIT = frozenset(
    {"response_format", "stop", "logit_bias", "tools", "tool_choice", "seed", "temperature"}
)
"""Parameters that would shape a verdict like an answer, or make all samples one."""


def parameters_for(verification: str | int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of verification calls: the model's own, less what does not fit.

    Samples are drawn at temperature 1; a single call keeps the model's own temperature.
    """
    kept = {key: value for key, value in given.items() if key not in UNFIT}
    if verification != "probability":
        return kept | {"temperature": 1.0}
    return kept | {k: v for k, v in given.items() if k in ("temperature", "seed")}


_WORD = re.compile(r"\b(not correct|incorrect|correct)\b")


def verdict(text: str) -> bool | None:
    """Whether a text says that the answer is right; None if it does not say, or says both."""
    said = {word == "correct" for word in _WORD.findall(" ".join(text.casefold().split()))}
    return said.pop() if len(said) == 1 else None


def confidence(answer: Stored | Attempt) -> float:
    """Probability that an answer is right, by one verification call; NaN if it does not say."""
    if answer.status != "ok" or not answer.text:
        return float("nan")
    if answer.scores and set(VERDICTS) <= answer.scores.keys():
        return float(answer.scores[VERDICTS[0]])
    is_right = verdict(answer.text)
    if is_right is None:
        return float("nan")
    sure = 1.0 if answer.confidence is None else answer.confidence
    return float(sure if is_right else 1.0 - sure)


class Verdicts:
    """What the samples of one verifier have said so far.

    Args:
        n_prompts: of the call.
        samples: calls for each prompt; sample k of prompt i is unit k * n_prompts + i.
        votes: each sample counts as a yes or no; else as the probability it comes with.
    """

    def __init__(self, n_prompts: int, samples: int, *, votes: bool) -> None:
        self._n = n_prompts
        self._votes = votes
        self._open = np.full(n_prompts, samples, dtype=np.int64)
        self._said = np.zeros(n_prompts)
        self._sum = np.zeros(n_prompts)
        # in whole 1e-12 units, so that the sum does not depend on the order of arrival
        self._costs = np.zeros(n_prompts, dtype=np.int64)

    def add(
        self, units: Sequence[int], answers: Sequence[Stored | Attempt], costs: Sequence[float]
    ) -> IntArray:
        """Take the final attempts of some units; returns the prompts that are complete now."""
        prompts = np.array(units, dtype=np.int64) % self._n
        said = np.array([confidence(answer) for answer in answers])
        if self._votes:
            said = np.where(np.isnan(said), said, np.rint(said))
        known = ~np.isnan(said)
        np.add.at(self._sum, prompts[known], said[known])
        np.add.at(self._said, prompts[known], 1.0)
        np.add.at(self._costs, prompts, np.rint(np.array(costs) * 1e12).astype(np.int64))
        np.subtract.at(self._open, prompts, 1)
        touched = np.unique(prompts)
        return np.asarray(touched[self._open[touched] == 0])

    def costs(self, prompts: IntArray) -> FloatArray:
        """What all samples of each prompt cost; shape of `prompts`."""
        return np.asarray(self._costs[prompts] / 1e12)

    def confidences(self, prompts: IntArray) -> FloatArray:
        """Mean over the samples that can be read; NaN where none can; shape of `prompts`."""
        said = self._said[prompts]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(said > 0, self._sum[prompts] / said, np.nan))
