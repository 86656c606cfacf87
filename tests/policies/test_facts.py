"""What every certificate promises, checked against itself."""

from __future__ import annotations

import math

import pytest

from smartsql.errors import ParameterError
from smartsql.policies.facts import promise_discrepancies

FACTS = {"delta": 0.29, "gamma": 0.95, "rows": 100, "tolerated": 29, "alpha": 1 - 0.95}


def test_a_promise_that_is_kept_to_has_no_discrepancies() -> None:
    assert promise_discrepancies(FACTS) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tolerated": 30}, "30 rows tolerated, delta allows 29"),
        ({"tolerated": 28}, "28 rows tolerated, delta allows 29"),
        ({"alpha": 0.06}, "alpha is 0.06, gamma 0.95"),
        ({"alpha": math.nan}, "alpha is nan, gamma 0.95"),
    ],
)
def test_more_or_less_than_was_promised_is_told(changed: dict[str, float], said: str) -> None:
    assert promise_discrepancies(FACTS | changed) == [said]


def test_a_promise_that_nobody_can_make_is_refused() -> None:
    with pytest.raises(ParameterError):
        promise_discrepancies(FACTS | {"delta": 1.5})
