"""What a `learned` model takes as `parameters`, and how its identity tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from smartsql.errors import ConfigError

KIND = "learned:"
"""How the identity of a learned model begins."""

RANGES = {
    "strength": (1e-3, 1e3),
    "max_classes": (2, 1000),
    "hash_bits": (8, 22),
    "least_confidence": (0.0, 1.0),
}
FRACTIONS = ("strength", "least_confidence")
"""Parameters that need not be whole numbers."""


@dataclass(frozen=True, slots=True)
class LearnedParameters:
    """What a `learned` model takes as `parameters`.

    Attributes:
        strength: inverse of the regularisation (`C`); larger fits the training set closer.
        max_classes: answers that it tells apart at most; with more it abstains.
        hash_bits: each of the two groups of features has 2 ** hash_bits columns.
        least_confidence: below this probability it abstains. The default is never to: an
            abstention disagrees for certain, a guess only perhaps.
        distils: name of a cheap model whose answers teach it first; None for none.
    """

    strength: float = 3.0
    max_classes: int = 50
    hash_bits: int = 18
    least_confidence: float = 0.0
    distils: str | None = None

    @staticmethod
    def of(name: str, given: Mapping[str, object]) -> LearnedParameters:
        """The parameters of a model's configuration.

        Raises:
            ConfigError: an unknown parameter, or a value of the wrong type or range.
        """
        known = {f.name for f in fields(LearnedParameters)}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ConfigError(
                f"model {name!r} has the unknown parameter {unknown[0]!r}; a learned model takes "
                f"{', '.join(sorted(known))}."
            )
        values: dict[str, Any] = dict(given)
        for key, value in values.items():
            if key == "distils":
                _check_distils(name, value)
                continue
            low, high = RANGES[key]
            is_number = type(value) is int or (key in FRACTIONS and type(value) is float)
            if not is_number or not low <= value <= high:
                kind = "number" if key in FRACTIONS else "whole number"
                raise ConfigError(
                    f"model {name!r} has {key} = {value!r}; it must be a {kind} from {low:g} to "
                    f"{high:g}."
                )
        return LearnedParameters(**values)

    def identity(self) -> str:
        """All of them as a text; `distilled` reads it."""
        return KIND + json.dumps(asdict(self))


def _check_distils(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value or value == name):
        raise ConfigError(
            f"model {name!r} has distils = {value!r}; it must be the name of another model, a "
            f"cheap one whose answers are asked anyway."
        )


def distilled(identity: str) -> str | None:
    """The model that a learned model of this identity distils, None for none.

    What a model was trained on must be known wherever its answers are looked up, even where the
    model itself is not at hand; so this is read from the identity alone.
    """
    if not identity.startswith(KIND):
        return None
    values, _ = json.JSONDecoder().raw_decode(identity.removeprefix(KIND))
    found: str | None = values.get("distils")
    return found
