"""What learning models know from earlier statements of the same task, and what they keep of this.

A statement remembers what it started from, so that it takes the same decisions when it is run
again. The start must not know the order of the rows: it was learned from rows that were asked,
and in the same order the same rows would be asked first; they would look better than the rest.
A seed that was drawn for this statement alone is fresh in any case; one that is configured is
mixed with the starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from smartsql.asking.learners import Learners
from smartsql.calls.work import Work
from smartsql.ledger import Ledger

if TYPE_CHECKING:
    from smartsql.gateway.classifier import Classifier
    from smartsql.gateway.kept import Kept, Subject

SEED_BITS = 48


class Memory:
    """The starts of one statement.

    Args:
        store: the ledger; what was learned lies beside it.
        work: the statement.

    Attributes:
        notes: sentences for the report.
    """

    def __init__(self, store: Ledger, work: Work) -> None:
        self.notes: list[str] = []
        self._store = store
        self._kept: Kept | None = None
        self._subjects: dict[str, Subject] = {}
        if work.learning:
            self._look(store.path, work)

    def _look(self, path: str, work: Work) -> None:
        from smartsql.gateway.kept import Kept, Subject

        self._kept = Kept(path)
        identities = {r.name: i for r, i in zip(work.recipes, work.identities, strict=True)}
        reference = work.recipes[0].name
        self._subjects = {
            name: Subject(work.cells.task, identities[reference], identities[name])
            for name in sorted(work.learning & identities.keys())
        }

    def starts(self, key: bytes) -> dict[str, str]:
        """Digest of what each learning model of a statement starts from, where it has any."""
        if self._kept is None:
            return {}
        latest = {name: self._kept.latest(subject) for name, subject in self._subjects.items()}
        self.notes += self._kept.notes
        return self._store.starts(key, {name: d for name, d in latest.items() if d is not None})

    def begin(self, starts: Mapping[str, str], learners: Learners) -> None:
        """Have the models begin with them."""
        for name, digest in starts.items():
            assert self._kept is not None
            learners.begin(name, digest, self._kept.load(self._subjects[name], digest))

    def keep(self, learned: Mapping[str, Classifier]) -> None:
        """Keep what was learned for the next statement."""
        for name, classifier in learned.items():
            assert self._kept is not None
            self._kept.save(self._subjects[name], classifier)


def mixed(seed: int, starts: Mapping[str, str]) -> int:
    """A configured seed for a statement with these starts; the seed itself where there are none."""
    if not starts:
        return seed
    text = repr((seed, sorted(starts.items())))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> (
        64 - SEED_BITS
    )
