"""Constants of the exact audit. They move money, never the promise."""

from __future__ import annotations

from dataclasses import dataclass

PILOT_SIZES = (
    *(6, 10, 15, 22, 32, 45, 65, 95, 140, 200, 300, 450, 700),
    *(1000, 1500, 2200, 3300, 5000, 7500, 11000, 16000, 24000),
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the policy weighs, and how.

    Attributes:
        pilot_sizes: numbers of pilot rows after which the plan is weighed again.
        pilot_limit: largest share of the rows that a pilot takes.
        pilot_share: a pilot goes on until it has this share of the rows the audit will need.
        hopeless: a candidate is dropped when its chance to agree on most rows is below this.
        keep: another candidate stays in the race while not knowing it better is expected to cost
            more than this share of auditing it too.
        pair_shares: shares of alpha of the first and the second candidate of a race.
        pair_penalty: share of its audit that a design costs more at a part of alpha.
        regret: weight of the expected regret of racing one candidate only.
        look_further: the pilot goes on while more rows cost less than this share of what is open.
        look_ahead: rows may be asked before they are surely needed while those in vain cost
            less than this share of the whole.
        stop_floor: least chance that the audit stops with a batch, as reckoned in look_ahead.
        overspend: whatever the answers, at most this share of the reference's bill is added.
        max_last: largest share of the rows that is audited.
        learning_rate: a learning candidate's error falls with this power of its labels.
        learning_from: labels before which a learning candidate is not asked.
        learning_trial: share of the expected cost that labels to try one out may take.
        learning_error: error rate expected of it then, before it was tried.
    """

    pilot_sizes: tuple[int, ...] = PILOT_SIZES
    pilot_limit: float = 0.25
    pilot_share: float = 0.05
    hopeless: float = 0.01
    keep: float = 0.1
    pair_shares: tuple[float, float] = (0.6, 0.4)
    pair_penalty: float = 0.10
    regret: float = 2.0
    look_further: float = 0.25
    look_ahead: float = 0.01
    stop_floor: float = 0.2
    overspend: float = 0.02
    max_last: float = 0.9
    learning_rate: float = 0.3
    learning_from: int = 20
    learning_trial: float = 0.05
    learning_error: float = 0.4
