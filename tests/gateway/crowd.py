"""An endpoint with so many places, and a caller that fills its own: simulated, without a clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from smartsql.gateway.congestion import Congestion
from smartsql.gateway.limits import Slots


@dataclass(frozen=True)
class Crowd:
    """What came of it: the used share of the endpoint's places, and the refused share of calls."""

    used: float
    refused: float
    places: int
    mean_places: float


def crowd(
    configured: int,
    capacity: Callable[[float], int],
    calls: int,
    *,
    latency_s: float = 0.05,
    refusal_s: float = 0.002,
    turn_s: float = 0.002,
    at_random: float = 0.0,
    seed: int = 0,
) -> Crowd:
    """Calls until so many are answered.

    Args:
        capacity: the endpoint's places at a time.
        refusal_s: how long a refusal takes.
        turn_s: from the end of an answer at the endpoint until the caller has read it.
        at_random: share of calls that are refused whatever is free.
    """
    draw, slots = random.Random(seed), Slots(configured)
    congestion = Congestion(slots)
    now, mine, theirs, answered, refused, sent = 0.0, 0, 0, 0, 0, 0
    busy_s, room_s, places = 0.0, 0.0, 0.0
    events: list[tuple[float, int, str, float]] = []
    while answered < calls:
        while mine < slots.limit:
            mine, sent = mine + 1, sent + 1
            if theirs >= capacity(now) or draw.random() < at_random:
                heapq.heappush(events, (now + refusal_s, sent, "refused", now))
            else:
                theirs += 1
                took_s = latency_s * draw.uniform(0.9, 1.1)
                busy_s += took_s
                heapq.heappush(events, (now + took_s, sent, "over", now))
                heapq.heappush(events, (now + took_s + turn_s, sent, "answered", now))
        at, _, what, sent_at = heapq.heappop(events)
        room_s += (at - now) * min(configured, capacity(now))
        places += (at - now) * slots.limit
        now = at
        if what == "over":
            theirs -= 1
            continue
        mine -= 1
        answered += what == "answered"
        refused += what == "refused"
        congestion.record(refused=what == "refused", sent_at=sent_at, now=now)
    return Crowd(busy_s / room_s, refused / sent, slots.limit, places / now)
