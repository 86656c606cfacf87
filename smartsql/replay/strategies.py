"""The strategies that can be replayed, by name; a policy loads when it is first built."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from smartsql.errors import ParameterError
from smartsql.policies import Policy
from smartsql.replay.recording import Recording

if TYPE_CHECKING:
    from smartsql.policies.smart import Procedure


def _certified(recording: Recording) -> Policy:
    from smartsql.policies.certified import Certified

    return Certified()


def _certified_blind(recording: Recording) -> Policy:
    from smartsql.policies.exact.exact import Exact

    return Exact()


def _reference(recording: Recording) -> Policy:
    from smartsql.policies.reference import Reference

    return Reference()


def _smart(procedure: Procedure) -> Callable[[Recording], Policy]:
    def build(recording: Recording) -> Policy:
        from smartsql.policies.smart import Smart

        return Smart(procedure, recording.prompt_prices)

    return build


def _threshold(recording: Recording) -> Policy:
    from smartsql.policies.cascades.threshold import Threshold

    return Threshold()


def _data_shunt(recording: Recording) -> Policy:
    from smartsql.policies.cascades.shunt import DataShunt

    return DataShunt()


def _bargain(recording: Recording) -> Policy:
    from smartsql.policies.cascades.bargain import Bargain

    return Bargain()


def _automix(router: Literal["threshold", "pomdp-simple"]) -> Callable[[Recording], Policy]:
    def build(recording: Recording) -> Policy:
        from smartsql.policies.cascades.automix import AutoMix

        return AutoMix(router)

    return build


def _automix_pomdp(recording: Recording) -> Policy:
    from smartsql.policies.cascades.pomdp import AutoMixPOMDP

    return AutoMixPOMDP()


def _hindsight(kind: str) -> Callable[[Recording], Policy]:
    def build(recording: Recording) -> Policy:
        from smartsql.replay import hindsight

        policy: Policy = getattr(hindsight, kind)(recording)
        return policy

    return build


STRATEGIES: dict[str, Callable[[Recording], Policy]] = {
    "certified": _certified,
    "certified-blind": _certified_blind,
    "reference": _reference,
    "smart-profile-all": _smart("profile-all"),
    "smart-profile-smart": _smart("profile-smart"),
    "smart-model-mix": _smart("model-mix"),
    "bargain": _bargain,
    "threshold": _threshold,
    "data-shunt": _data_shunt,
    "automix-threshold": _automix("threshold"),
    "automix-pomdp-simple": _automix("pomdp-simple"),
    "automix-pomdp": _automix_pomdp,
    "oracle-single": _hindsight("OracleSingle"),
    "oracle-mix": _hindsight("OracleMix"),
    "oracle-cascade": _hindsight("OracleCascade"),
    "clairvoyant": _hindsight("Clairvoyant"),
}
"""Builders by strategy name, in the order in which they are listed."""

SUMMARIES = {
    "certified": "routes rows by evidence, proves the promise",
    "certified-blind": "proves one candidate, without evidence on rows",
    "reference": "asks the reference about every row",
    "smart-profile-all": "SMART: profiles models until the cheapest is known",
    "smart-profile-smart": "SMART: ends profiling where it does not pay",
    "smart-model-mix": "SMART: a mixture of models",
    "bargain": "BARGAIN: a two-model cascade that proves its threshold",
    "threshold": "a cascade whose threshold is learned, without a guarantee",
    "data-shunt": "Data Shunt: keeps what a small model is sure of, no guarantee",
    "automix-threshold": "AutoMix: retries up to a bin of verification, no guarantee",
    "automix-pomdp-simple": "AutoMix: the published one-step routers, no guarantee",
    "automix-pomdp": "AutoMix: beliefs over a ladder, solved, no guarantee",
    "oracle-single": "hindsight: the cheapest model that agrees often enough",
    "oracle-mix": "hindsight: the best blind mixture",
    "oracle-cascade": "hindsight: the best threshold on one model's confidence",
    "clairvoyant": "hindsight: the cheapest right model for each row",
}
"""What each strategy is, in a line."""


def strategy(name: str, recording: Recording) -> Policy:
    """The policy of a strategy, ready to run over a recording.

    Raises:
        ParameterError: no such strategy in this version; names those there are.
    """
    if name in STRATEGIES:
        return STRATEGIES[name](recording)
    available = f"Available are {', '.join(STRATEGIES)}."
    near = get_close_matches(name, STRATEGIES, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ParameterError(f"there is no strategy {name!r}. {hint}{available}")
