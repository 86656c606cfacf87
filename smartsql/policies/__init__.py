"""Policies: rules that pick the next asks and, last, who answers each prompt.

A policy is sans-I/O. It is a generator: it yields the asks of one step (they run concurrently),
finds their answers in the profile when it is resumed, and returns a `Plan`. Given the same
answers and the same order it takes the same decisions, so every run can be replayed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from smartsql.profile import Problem, Profile
from smartsql.types import Ask, Plan

Steps = Generator[list[Ask], None, Plan]


class Policy(Protocol):
    """A rule that answers a problem."""

    @property
    def name(self) -> str:
        """The strategy's name, as `smartsql replay --strategy` takes it."""
        ...

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        """Yield what to ask until nothing is open, then return the plan."""
        ...
