"""Templates of prompts, and the names under which calls made from them are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

PLACEHOLDER = "{input}"
"""Where the cell goes."""
PLACEHOLDERS = ("input", "prompt", "hints", "labels", "steps")
"""What a template may hold, apart from the names of steps."""


def placeholders(template: str, names: Sequence[str]) -> set[str]:
    """Which of these placeholders a template has."""
    return {name for name in names if f"{{{name}}}" in template}


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values in place of their placeholders in one pass, so that no value is looked into."""
    parts = re.split(r"\{(" + "|".join(map(re.escape, values)) + r")\}", template)
    return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))


def verifier_name(model: str) -> str:
    """Name of the calls that judge a model's answers."""
    return f"{model} verification"


def step_name(task: str | None, step: str) -> str:
    """Name of the calls of a step."""
    return f"{task}.{step}"


def repeat_name(reference: str) -> str:
    """Name of the calls that ask the reference again."""
    return f"{reference} again"


def recheck_name(model: str) -> str:
    """Name of the calls that compare a model with its own earlier answers."""
    return f"{model} rechecked"
