"""Values that all parts share: what is required, who may answer, what to ask, what was decided."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartsql.errors import ParameterError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

UNKNOWN = -1
"""Answer code of a prompt that a model was not asked."""
FAILED = -2
"""Answer code of a prompt that a model was asked without a usable answer."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """With probability at least `gamma`, at most a share `delta` of the rows disagree.

    Raises:
        ParameterError: `delta` outside [0, 1) or `gamma` outside (0, 1).
    """

    delta: float
    gamma: float

    def __post_init__(self) -> None:
        if not (isinstance(self.delta, (int, float)) and 0.0 <= self.delta < 1.0):
            raise ParameterError(
                f"delta is {self.delta!r}; it must be at least 0 and below 1, such as 0.1 "
                f"(at most a tenth of the rows may differ)."
            )
        if not (isinstance(self.gamma, (int, float)) and 0.0 < self.gamma < 1.0):
            raise ParameterError(
                f"gamma is {self.gamma!r}; it must lie between 0 and 1, such as 0.95 "
                f"(the probability with which the promise holds)."
            )

    @property
    def alpha(self) -> float:
        """Probability with which the promise may fail."""
        return 1.0 - self.gamma

    def tolerated(self, n_rows: int) -> int:
        """Number of rows that may differ: floor(delta * n_rows), safe against rounding."""
        return math.floor(self.delta * n_rows + 1e-9)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer, as a policy sees it (the reference included).

    Attributes:
        name: the model's name, unique within a problem.
        expected_cost: cost of one call as far as known before any call was made.
        learns: it is trained from the reference's answers; a policy asks for the
            training with `Ask(fit=True)` and never after its audit has begun.
        after: names of models whose answers to the same prompt go into its own prompt, and are
            therefore asked first. A verifier's is the one model that it verifies.
    """

    name: str
    expected_cost: float
    learns: bool = False
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One batch for one model; all asks of a step run concurrently.

    Attributes:
        model: name of the model.
        prompts: indices of distinct prompts; those already answered cost nothing.
        fit: train the model on all known reference answers before asking.
        anew: with `fit`, ask about known prompts as well: the answers of this training take the
            place of earlier ones. For learning models only, and never for one whose answers are
            under test: those are frozen before the first draw.
        bulk: no further decision waits for the answers, so that they may take their time.

    Raises:
        ValueError: `anew` without `fit`; the same model would only repeat itself.
    """

    model: str
    prompts: IntArray
    fit: bool = False
    anew: bool = False
    bulk: bool = False

    def __post_init__(self) -> None:
        if self.anew and not self.fit:
            raise ValueError(f"{self.model} is to be asked anew without being trained anew")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy decided: who answers each prompt, and why that keeps the promise.

    Attributes:
        assigned: for each prompt the position of its model: 0 the reference,
            k the k-th candidate of the problem; shape (n_prompts,).
        bound: share of rows that may differ, with probability at least gamma at most this.
        pilot_rows: rows bought to choose the plan.
        audited_rows: rows bought to prove it.
        escalates_failures: a failed answer of a candidate goes to the reference.
        certificate: JSON-able facts from which the decision can be checked again.
        notes: sentences for the report (a candidate left out, and why).
    """

    assigned: IntArray
    bound: float
    pilot_rows: int = 0
    audited_rows: int = 0
    escalates_failures: bool = True
    certificate: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
