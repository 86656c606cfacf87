"""How often the reference repeats its own answer, measured on demand.

A model behind an endpoint may answer the same prompt differently the next time. The promise is
about the answers that were given; how much of a disagreement between models is the reference's own
wavering is told by asking it again about some rows that it answered.
"""

from __future__ import annotations

import numpy as np

from smartsql.executor import Source, fulfil
from smartsql.profile import Profile
from smartsql.templates import repeat_name
from smartsql.types import Ask, IntArray

Agreement = dict[str, int]
"""Prompts "asked" again, how many had the "same" answer, and how many "failed" to give one."""


def ask_again(profile: Profile, source: Source, n: int) -> Agreement:
    """Ask the reference again about the prompts of up to `n` random rows that it answered.

    What is asked depends on the secret order alone, so a rerun
    asks the same again and finds it paid.
    """
    reference = profile.problem.reference.name
    return compared(profile, source, reference, repeat_name(reference), _drawn(profile, n))


def compared(
    profile: Profile, source: Source, model: str, again: str, prompts: IntArray
) -> Agreement:
    """Ask about distinct prompts that a model has answered, under another name, and compare."""
    fulfil([Ask(again, prompts)], profile, source)
    codes = profile.codes(again)[prompts]
    same, failed = codes == profile.codes(model)[prompts], codes < 0
    return {"asked": int(prompts.size), "same": int(same.sum()), "failed": int(failed.sum())}


def _drawn(profile: Profile, n: int) -> IntArray:
    """Distinct prompts of random rows among those that the reference answered."""
    population = profile.problem.population
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([population.entropy, 2])))
    rows = population.order[rng.permutation(population.n_rows)]
    rows = rows[profile.codes(profile.problem.reference.name)[rows] >= 0]
    _, first = np.unique(rows, return_index=True)
    return np.asarray(rows[np.sort(first)[:n]])
