"""How many calls an endpoint takes at once, learned from those it refuses (429).

An endpoint with places for so many calls refuses each one more, at once: a caller with more places
than that has every refused call followed by another one that is refused. So a place whose call was
refused is closed, and after as many outcomes as there are places what is open is looked at:

* refusals that the endpoint's usual share explains are no reason: the places open again;
* more of them, and the closed places stay closed. Where that did not make refusals rarer, they
  come at random (others share the endpoint, or it throws dice): fewer places would only be slower,
  so they open again, and that share counts as usual from then on;
* none for a while, and a few more places are tried, each time twice as many, until it refuses.

The first calls of a model are a moderate number too, doubled as long as it takes them all.

Source: additive increase, multiplicative decrease, Chiu and Jain (1989); slow start, Jacobson
(1988). We differ in that a refusal closes one place instead of halving all: unlike a lost packet it
tells exactly what was too much.
"""

from __future__ import annotations

import math

from smartsql.gateway.limits import Slots

FIRST_PLACES = 64
"""Calls in flight before anything is known of the endpoint."""
SMALLEST_WINDOW = 25
"""Outcomes that are judged together at least."""
CALM_WINDOWS = 5
"""Windows without an unusual refusal before more places are tried."""
MOST_USUAL = 0.2
"""Share of refusals that is taken for chance at most."""
MEMORY = 0.8
"""Weight of what is known of the usual share when another window is seen."""


class Congestion:
    """Fits a model's places to what its endpoint accepts. For use on the event loop only."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._most = slots.limit
        self._level = min(self._most, FIRST_PLACES)
        self._safe = self._level
        self._step = self._level
        self._calm = CALM_WINDOWS - 1  # the first window that passes is enough for the next step
        self._usual = 0.0
        self._doubted: tuple[int, float] | None = None
        self._begin(-math.inf)
        slots.resize(self._level)

    def record(self, *, refused: bool, sent_at: float, now: float) -> None:
        """A call ended; times in seconds on one clock."""
        if sent_at < self._since:
            return  # sent with other places than there are now: it says nothing of these
        self._outcomes += 1
        if refused:
            self._refused += 1
            self._slots.resize(max(1, self._level - self._refused))
        if self._outcomes >= max(self._level, SMALLEST_WINDOW):
            self._level = min(self._most, max(1, self._judged()))
            self._begin(now)
            self._slots.resize(self._level)

    def _begin(self, now: float) -> None:
        self._since = now
        self._outcomes = 0
        self._refused = 0

    def _judged(self) -> int:
        """The places for the next window."""
        share = self._refused / self._outcomes
        expected = self._usual * self._outcomes
        if self._doubted is not None:
            return self._after_doubt(share)
        if self._refused > expected + max(0.5, 2.0 * math.sqrt(expected)):
            return self._shrunk(share)
        self._usual = MEMORY * self._usual + (1.0 - MEMORY) * share
        if self._level > self._safe:  # more places were tried, and the endpoint took them
            self._safe = self._level
            self._step *= 2
            return self._level + self._step
        self._calm += 1
        if self._calm < CALM_WINDOWS:
            return self._level
        return self._level + self._step

    def _shrunk(self, share: float) -> int:
        """Fewer places, by the share that was refused for no usual reason."""
        excess = max(1, round((share - self._usual) * self._level))
        if self._level == self._safe and share <= MOST_USUAL:
            self._doubted = (self._level, share)
        self._safe, self._step, self._calm = max(1, self._level - excess), 1, 0
        return self._safe

    def _after_doubt(self, share: float) -> int:
        """Whether fewer places made refusals rarer; if not, they were no reason."""
        assert self._doubted is not None
        (level, before), self._doubted = self._doubted, None
        if before / 2 <= share <= 2 * MOST_USUAL:
            self._usual = min(MOST_USUAL, (before + share) / 2)
            self._safe = level
            return level
        return self._shrunk(share) if share > before else self._level
