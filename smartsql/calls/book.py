"""The book of one statement: what was answered, by whom, at what cost, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smartsql.calls.cells import Cells
from smartsql.calls.materials import Hints, Material, materials
from smartsql.calls.readings import Readings
from smartsql.calls.recipes import Recipe
from smartsql.calls.tally import Tally
from smartsql.calls.verification import Verdicts
from smartsql.features import ANSWER_NAMES, answer_figures
from smartsql.gateway import Attempt
from smartsql.ledger import Stored
from smartsql.profile import Profile
from smartsql.types import FAILED, FloatArray, IntArray

NOT_ASKED = frozenset({"budget", "cancelled"})
"""Statuses of final attempts that were never sent."""


class Book:
    """What one statement knows of its prompts, beyond what policies see in the profile.

    Args:
        cells: what is asked.
        recipes: of all that can be asked, by name.
        in_seconds: costs are measured seconds instead of dollars.

    Attributes:
        text_of: for each model the position of its answer in `texts`, -1 where there is none;
            shape (n_prompts,) each.
        was_cached: for each model which answers were paid for earlier; shape (n_prompts,) each.
        tallies: counts and costs by model.
        paid_usd: money spent on each prompt in this statement; shape (n_prompts,).
        errors: why a prompt has no answer.
        hints: what is known of the labels, by models that give hints to others.
    """

    def __init__(self, cells: Cells, recipes: Mapping[str, Recipe], *, in_seconds: bool) -> None:
        n = len(cells.digests)
        self.cells = cells
        self.recipes = recipes
        self.in_seconds = in_seconds
        self.tallies = {name: Tally() for name in recipes}
        self.text_of = {name: np.full(n, -1, dtype=np.int32) for name in self.tallies}
        self.was_cached = {name: np.zeros(n, dtype=np.bool_) for name in self.tallies}
        self.paid_usd = np.zeros(n, dtype=np.float64)
        self.errors: dict[int, str] = {}
        self._readings = Readings(cells.task)
        self._own_readings = {
            name: Readings(recipe.task(cells.task))
            for name, recipe in recipes.items()
            if recipe.role == "step"
        }
        givers = {g for r in recipes.values() if r.kind in ("soft", "hard") for g in r.after}
        self.hints = {name: Hints(n, cells.task.labels) for name in givers}
        self._verdicts = {
            name: Verdicts(n, recipe.samples, votes=not recipe.labels)
            for name, recipe in recipes.items()
            if recipe.role == "verifier"
        }

    @property
    def texts(self) -> list[str]:
        """Answer texts; `text_of` holds positions in this list."""
        return self._readings.texts

    @property
    def spent_usd(self) -> float:
        """Money spent in this statement so far, failed attempts included."""
        return sum(tally.cost_usd for tally in self.tallies.values())

    def answers_of(self, model: str, prompts: IntArray) -> list[str]:
        """The texts that a model answered to prompts, all of which it has answered."""
        texts = self._own_readings.get(model, self._readings).texts
        return [texts[i] for i in self.text_of[model][prompts].tolist()]

    def materials(self, model: str, prompts: IntArray) -> list[Material]:
        """What goes into a model's prompts of earlier answers, all of which are known."""
        return materials(self.recipes[model], prompts, self.hints, self.answers_of)

    def error_texts(self, prompts: IntArray) -> dict[int, str]:
        """Why each of these prompts has no answer."""
        return {i: self.errors.get(i, "not asked: the budget is used up") for i in prompts.tolist()}

    def count(self, model: str, units: list[int], attempts: Sequence[Attempt]) -> None:
        """Count attempts and what they cost; units as in `prompting.Prompting`."""
        self.tallies[model].add(attempts)
        prompts = np.array(units, dtype=np.int64) % self.paid_usd.size
        np.add.at(self.paid_usd, prompts, [a.cost_usd for a in attempts])

    def enter(
        self, model: str, units: list[int], answers: Sequence[Stored | Attempt], profile: Profile
    ) -> list[int]:
        """Read raw answers and record them in the profile.

        Returns:
            Positions, in the arguments, of answers without a usable value.
        """
        costs = [a.seconds for a in answers] if self.in_seconds else [a.cost_usd for a in answers]
        if model in self._verdicts:
            self._judge(model, units, answers, costs, profile)
            return []
        at = np.array(units, dtype=np.int64)
        codes, texts = self._read(
            model, at, [a.text if a.status == "ok" else None for a in answers]
        )
        self.text_of[model][at] = texts
        self.was_cached[model][at] = False  # a learning model may have been asked before
        if model in self.hints:
            self.hints[model].add(units, answers)
        confidences = np.array([a.confidence for a in answers], dtype=np.float64)
        has_confidence = not np.isnan(confidences).all()
        profile.record(
            model,
            at,
            codes,
            np.array(costs),
            confidences if has_confidence else None,
            _figures(answers),
        )
        failed: list[int] = np.flatnonzero(codes == FAILED).tolist()
        self.tallies[model].failed += len(failed)
        return failed

    def judged(self, model: str, units: list[int], attempts: list[Attempt]) -> list[Attempt]:
        """Attempts as they are to be kept: an answer that is not of the call's type is none.

        Answers in words are kept as they came, since another task may read them otherwise; beside
        a candidate's stands what they say of their cells, which the ledger does not keep.
        """
        recipe = self.recipes[model]
        if recipe.role == "candidate" and not self.cells.task.labels:
            texts = self.cells.texts.take(np.array(units, dtype=np.int64)).to_pylist()
            figures = answer_figures([a.text for a in attempts], texts)
            attempts = [
                replace(a, figures=row.tobytes()) if a.text else a
                for a, row in zip(attempts, figures, strict=True)
            ]
        if self.cells.task.kind == "llm" or not recipe.answers_rows or recipe.kind == "hard":
            return attempts
        codes, _ = self._readings.read([a.text if a.status == "ok" else None for a in attempts])
        return [
            replace(a, status="unusable") if a.status == "ok" and code == FAILED else a
            for a, code in zip(attempts, codes.tolist(), strict=True)
        ]

    def not_of_type(self, model: str, found: Mapping[bytes, Stored]) -> list[bytes]:
        """The keys of answers that `judged` would not have kept as answers."""
        recipe = self.recipes[model]
        if self.cells.task.kind == "llm" or not recipe.answers_rows or recipe.kind == "hard":
            return []
        keys = [key for key, stored in found.items() if stored.status == "ok"]
        codes, _ = self._readings.read([found[key].text for key in keys])
        return [key for key, code in zip(keys, codes.tolist(), strict=True) if code == FAILED]

    def enter_not_asked(self, model: str, prompts: IntArray, profile: Profile) -> None:
        """Record prompts that were not asked since an answer that goes into them is missing."""
        codes = np.full(prompts.size, FAILED, dtype=np.int32)
        profile.record(model, prompts, codes, np.zeros(prompts.size))

    def _read(
        self, model: str, prompts: IntArray, raw: list[str | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Codes and text positions of raw answers, among the labels that each could choose from."""
        readings = self._own_readings.get(model, self._readings)
        if self.recipes[model].kind != "hard":
            return readings.read(raw)
        groups: dict[Material, list[int]] = {}
        for k, labels in enumerate(self.materials(model, prompts)):
            groups.setdefault(labels, []).append(k)
        codes, texts = np.empty((2, len(raw)), dtype=np.int32)
        for labels, some in groups.items():
            codes[some], texts[some] = readings.read([raw[k] for k in some], labels)
        return codes, texts

    def _judge(
        self,
        model: str,
        units: list[int],
        answers: Sequence[Stored | Attempt],
        costs: list[float],
        profile: Profile,
    ) -> None:
        """Record the confidence in each answer on which all verdicts are in."""
        verdicts = self._verdicts[model]
        done = verdicts.add(units, answers, costs)
        if done.size:
            (verified,) = self.recipes[model].after
            codes = profile.codes(verified)[done]
            sure: FloatArray = verdicts.confidences(done)
            profile.record(model, done, codes, verdicts.costs(done), sure)

    def enter_stored(self, model: str, stored: dict[int, Stored], profile: Profile) -> list[int]:
        """Record answers that were paid for earlier; returns the prompts that failed then."""
        units = list(stored)
        self.tallies[model].cached += len(units)
        failed = self.enter(model, units, list(stored.values()), profile)
        self.was_cached[model][np.array(units, dtype=np.int64) % self.paid_usd.size] = True
        return [units[k] for k in failed]

    def why(self, answer: Stored | Attempt) -> str:
        """Why an answer has no usable value, as a phrase."""
        status = answer.status
        if status in ("ok", "unusable"):
            return self.cells.task.complaint(answer.text or "")
        start = f"; {answer.error}" if isinstance(answer, Attempt) and answer.error else ""
        return {
            "empty": "its answer is empty",
            "cut": "its answer was cut off at the length limit (raise max_completion_tokens, or "
            "max_tokens, among the model's parameters)",
            "refused": "it refused to answer",
        }.get(status, status) + start


def _figures(answers: Sequence[Stored | Attempt]) -> NDArray[np.uint8] | None:
    """What is known of answers beside their cells, zeros where nothing is; None if of none."""
    told = [a.figures for a in answers]
    if not any(told):
        return None
    unknown = bytes(len(ANSWER_NAMES))
    rows = np.frombuffer(b"".join(some or unknown for some in told), dtype=np.uint8)
    return rows.reshape(len(told), len(ANSWER_NAMES))
