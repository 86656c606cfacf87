"""`threshold`: keep an answer whose confidence reaches a threshold learned on labelled rows."""

from __future__ import annotations

from smartsql.policies import Steps
from smartsql.policies.cascades.pair import cascade
from smartsql.policies.cascades.thresholds import lowest
from smartsql.profile import Problem, Profile


class Threshold:
    """The lowest threshold that kept the promise on the labelled rows. No guarantee.

    This is what FrugalGPT does with a list of one cheap model, and RouteLLM with a calibrated
    router: the labelled rows are taken for the truth. Since the lowest threshold that looked good
    enough was picked among many, its errors on the other rows lie above the allowance about as
    often as below. Answers without a confidence are the least confident, so a candidate that
    never gives one is kept as a whole or not at all.

    Source: FrugalGPT (arXiv 2305.05176), the cascade; RouteLLM (arXiv 2406.18665), calibration of
    the threshold. Only one threshold is learned here, on the model's own confidence.
    """

    @property
    def name(self) -> str:
        """The strategy's name."""
        return "threshold"

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Choose a model, learn its threshold, apply it."""
        return (yield from cascade(self.name, problem, profile, lowest, verifies=False))
