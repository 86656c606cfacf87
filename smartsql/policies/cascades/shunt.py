"""`data-shunt`: a small model keeps what it is sure of, the large one answers the rest."""

from __future__ import annotations

from dataclasses import dataclass

from smartsql.errors import ParameterError
from smartsql.policies import Steps
from smartsql.policies.cascades.pair import cascade
from smartsql.policies.cascades.thresholds import Limit, lowest_precise
from smartsql.profile import Problem, Profile


@dataclass(frozen=True, slots=True)
class DataShunt:
    """The shunt of Data Shunt: one threshold on the small model's confidence. No guarantee.

    Published is a fixed threshold; nothing says how to choose it for a wanted agreement. Where
    none is given it is learned as its purpose suggests: the small model keeps the rows on which it
    is as good as demanded, so the threshold is the lowest from which on the labelled rows that it
    keeps agree on a share 1 - delta. The rows that go on are right as well, so less than the
    allowance is used, at a higher price than `threshold` pays. Of several candidates the small
    model is the one whose shunt looks cheapest on a few labelled rows.

    Attributes:
        threshold: least confidence that is kept, from 0 to 1; learned when None.

    Source: Data Shunt+ (arXiv 2406.15471), the shunt; pruning, transferring and distillation are
    no part of a strategy over recorded answers, which hold no other prompts.

    Raises:
        ParameterError: a threshold that is no confidence.
    """

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise ParameterError(
                f"the threshold of data-shunt is {self.threshold!r}; it must be a confidence from "
                f"0 to 1, or None to learn one."
            )

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "data-shunt"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Choose a small model, learn its threshold unless it is given, apply it."""
        given = None if self.threshold is None else Limit(self.threshold)
        return (
            yield from cascade(
                self.name, problem, profile, lowest_precise, verifies=False, given=given
            )
        )
