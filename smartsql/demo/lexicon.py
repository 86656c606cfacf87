"""A word list as a model: the cheapest candidate of the demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from smartsql.errors import MissingExtraError

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def lexicon(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Sign and strength of each text's sentiment by the VADER word list.

    Returns:
        For each text ("positive" or "negative", confidence in [0, 1]). Without a word that it
        knows, or with a balance of exactly zero, it guesses "negative" at confidence 0: to
        abstain would count as a disagreement for certain, a guess agrees about half the time.

    Source: Hutto and Gilbert, VADER (ICWSM 2014).
    """
    score = analyzer().polarity_scores
    balances = [float(score(text)["compound"]) for text in texts]
    return [("positive" if balance > 0 else "negative", abs(balance)) for balance in balances]


@cache
def analyzer() -> SentimentIntensityAnalyzer:
    """The word list, read once."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ModuleNotFoundError as error:
        raise MissingExtraError("vaderSentiment", "demo", "the lexicon") from error
    return SentimentIntensityAnalyzer()
