"""Constants of routing. They move money, never the promise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutingTuning:
    """What routing weighs, and how.

    Attributes:
        bins: bins of rows in a plan.
        escalated: share of the planned escalations taken in each round, the last for all later.
        audited: share of the planned audits drawn in each round.
        stake_labels: labels at which half of the evidence is put at risk; with more it is more.
        rounds: rounds after which all but the tolerated rows are asked.
        pilot: rows of each look of a pilot, at least.
        pilot_rows: the same as a share of the rows.
        pilot_most: rows of a look at most.
        labels: rows of a pilot that trains a learning candidate and judges it.
        cheap: candidates up to this price, in calls of the reference, are in the pilot.
        pilot_share: share of the reference's bill that candidates may cost in a pilot.
        reach: a candidate is looked at further while predicted within this share of what the best
            saves, more in small pilots.
        probe: a dearer candidate is probed if the best prediction exceeds its price by this.
        belief: part of what a helper seems to save in a pilot that is believed.
        exact: the plain audit is taken when predicted below this share of routing.
        exact_unguided: the same where no evidence is expected to tell errors.
    """

    bins: int = 40
    escalated: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    audited: tuple[float, ...] = (
        *(0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3),
        *(0.4, 0.4, 0.4, 0.5, 0.5, 0.6, 0.6, 0.7, 0.7, 0.8, 0.8, 1.0),
    )
    stake_labels: float = 20.0
    rounds: int = 60
    pilot: int = 10
    pilot_rows: float = 1 / 150
    pilot_most: int = 100
    labels: int = 80
    cheap: float = 0.25
    pilot_share: float = 0.012
    reach: float = 0.2
    probe: float = 0.35
    belief: float = 0.8
    exact: float = 0.6
    exact_unguided: float = 1.5

    def at(self, schedule: tuple[float, ...], number: int) -> float:
        """The entry of a schedule for round `number`."""
        return schedule[min(number, len(schedule) - 1)]
