"""The learning models of one statement: what they start from, what they are taught, what is kept.

An answer of a learning model depends on its configuration, on what it started from and on what it
was taught. All three are in the identity under which the answer is kept, so a statement that is
run again, or verified, finds the answers of every training without training anything.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from smartsql.asking.lessons import teaching
from smartsql.calls.book import Book
from smartsql.gateway import Backend, LearningBackend
from smartsql.gateway.learned_parameters import distilled
from smartsql.profile import Profile

if TYPE_CHECKING:
    from smartsql.gateway.classifier import Classifier

FROM = " from "
"""Stands between the identity of a learning model and the digest of what it started from."""
TRAINED = " trained on "
"""Stands between that and the digest of its training set."""


FEWEST_NEW = 20
"""New answers of the reference that are worth a training at the end of a statement."""


class Learners:
    """Forks of the learning models, for one statement alone: no other one trains them.

    Args:
        backends: the models by name; learning ones are replaced by their forks.
        identities: under which answers are kept; what models start from is added.
        book: what the statement knows.
        reference: the model that teaches.
    """

    def __init__(
        self,
        backends: MutableMapping[str, Backend],
        identities: MutableMapping[str, str],
        book: Book,
        reference: str,
    ) -> None:
        self._backends = backends
        self._identities = identities
        self._book = book
        self._reference = reference
        self._forks: dict[str, LearningBackend] = {}
        self._gone: set[str] = set()
        self._taught: dict[str, str] = {}

    def begin(self, model: str, digest: str, start: Classifier | None) -> None:
        """Have a model begin with what was learned in an earlier statement.

        Args:
            digest: of what it starts from.
            start: None where that is gone. Then the model abstains, but for what it has answered
                already: it must not answer differently under the same identity.
        """
        if start is None:
            self._gone.add(model)
        self._forks[model] = self._backends[model] = self._shared(model).fork(start)
        self._identities[model] += FROM + digest

    def fit(self, model: str, profile: Profile) -> None:
        """Train a model on all reference answers that are known."""
        taught = teaching(self._book, profile, self._reference, distilled(self._identities[model]))
        if model not in self._forks:
            self._forks[model] = self._backends[model] = self._shared(model).fork()
        if model not in self._gone:
            self._forks[model].fit(taught.inputs, taught.answers, taught.hints)
        self._taught[model] = taught.digest

    def identity(self, model: str) -> str:
        """The identity under which a model's answers are kept now."""
        taught = self._taught.get(model)
        return self._identities[model] + (TRAINED + taught if taught else "")

    def learned(self, profile: Profile) -> Mapping[str, Classifier]:
        """What the models know at the end of the statement.

        Nothing where the reference was hardly asked anything: then there is nothing new.
        """
        found: dict[str, Classifier] = {}
        if self._book.tallies[self._reference].calls < FEWEST_NEW:
            return found
        for model in (m.name for m in profile.problem.candidates if m.learns):
            self.fit(model, profile)
            known = None if model in self._gone else self._forks[model].learned()
            if known is not None:
                found[model] = known
        return found

    def close(self) -> None:
        """Release the forks."""
        for fork in self._forks.values():
            fork.close()

    def _shared(self, model: str) -> LearningBackend:
        shared: LearningBackend = self._backends[model]  # type: ignore[assignment]
        return shared
