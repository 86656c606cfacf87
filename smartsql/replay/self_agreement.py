"""How often the reference repeats its own answer: the ceiling of any candidate's agreement."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from smartsql.errors import ParameterError
from smartsql.replay.recording import Recording

QUANTILE = 1.959964
"""Of the normal distribution, for an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """The reference beside a second run of itself.

    Attributes:
        reference, model: names of the two runs.
        rows: of the table.
        repeated: rows with the same answer in both.
        failed: rows without a usable answer in one of them; they are not repeated.
        low, high: a 95 % interval of the share that would be repeated on such rows.
    """

    reference: str
    model: str
    rows: int
    repeated: int
    failed: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Share of the rows that are repeated."""
        return self.repeated / self.rows

    def text(self) -> str:
        """Two or three sentences for a person."""
        lines = [
            f"Self-agreement: {self.reference} repeats its own answer on {self.repeated} of "
            f"{self.rows} rows, {self.share:.1%} (95 % interval {self.low:.1%} to {self.high:.1%}; "
            f"second run: {self.model}).",
            "No candidate can be expected to agree with it more often than that.",
        ]
        if self.failed:
            lines.append(f"{self.failed} row(s) without an answer in a run count as not repeated.")
        return "\n".join(lines)


def self_agreement(recording: Recording, model: str) -> SelfAgreement:
    """Compare the reference with a recorded second run of it.

    The interval is Wilson's. Rows that share a prompt tell no more than one of them, so the rows
    are counted as the number of equally heavy prompts that would tell as much.

    Args:
        model: the second run, one of the recording's models.

    Raises:
        ParameterError: the model is the reference itself.
    """
    if model == recording.reference:
        raise ParameterError(
            f"the second run {model!r} is the reference itself, which repeats every answer. "
            f"Record a second run under a name of its own."
        )
    weights = recording.weights.astype(np.float64)
    same = recording.agrees(model)
    failed = (recording.codes[model] < 0) | (recording.codes[recording.reference] < 0)
    rows, repeated = recording.n_rows, int(recording.weights[same].sum())
    low, high = wilson(repeated / rows, float(weights.sum() ** 2 / (weights**2).sum()))
    return SelfAgreement(
        recording.reference, model, rows, repeated, int(recording.weights[failed].sum()), low, high
    )


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate of which `share` was seen in `n` independent trials.

    Source: Wilson (1927); never empty, within 0 and 1 also where the share is 0 or 1.
    """
    z2 = QUANTILE**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = QUANTILE * sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
