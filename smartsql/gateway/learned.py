"""A local classifier that learns from the reference's own answers (`kind = "learned"`).

Hashed words, pairs of words and fragments of words, and a logistic regression over them: no
download, no language of its own, milliseconds to train, tens of thousands of texts a second to
ask. It is right to expect little of it on few or subtle answers; the audit decides whether it
may stand in.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING

from smartsql.errors import MissingExtraError
from smartsql.gateway import Allowance, Attempt, Hint, Request
from smartsql.gateway.learned_features import Featured, load
from smartsql.gateway.learned_parameters import LearnedParameters
from smartsql.gateway.worker import Answer, LocalBackend, failed

if TYPE_CHECKING:
    from smartsql.gateway.classifier import Classifier
    from smartsql.gateway.distillation import Lesson, Taught


class LearnedBackend(LocalBackend):
    """A model that answers as the reference did on similar texts.

    It abstains (status "empty") until it knows at least two different answers, and where there
    are more than `max_classes` of them: then they are no labels but free text. It abstains on
    blank texts, on answers that the task does not allow, and below `least_confidence`.

    Args:
        name: the model's name in the configuration.
        parameters: see `LearnedParameters`.
        start: what it knows before any training.

    Raises:
        ConfigError: the parameters cannot be used.
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, object] | None = None,
        start: Classifier | None = None,
    ) -> None:
        super().__init__(name)
        if importlib.util.find_spec("sklearn") is None:
            raise MissingExtraError("scikit-learn", "ml", f"model {name!r}")
        self._parameters = LearnedParameters.of(name, parameters or {})
        self._features = Featured(self._parameters.hash_bits)
        self._start = start
        self._training = _Training(lambda: begun(start), None if start else "it was not trained")

    def identity(self, labels: tuple[str, ...]) -> str:
        """The hyperparameters.

        Neither the training set nor the start is among them: whoever asks for the training knows
        both and keeps the answers of different fits apart. A statement's identities must not
        depend on what was trained before it.
        """
        return self._parameters.identity()

    def fork(self, start: Classifier | None = None) -> LearnedBackend:
        """A model of the same configuration, for one statement alone; it knows `start` only."""
        return LearnedBackend(self._name, asdict(self._parameters), start)

    def fit(
        self, inputs: Sequence[str], answers: Sequence[str], hints: Sequence[Hint] = ()
    ) -> None:
        """Learn from normalised reference answers; the order of the pairs plays no part.

        What is asked from now on is answered by this training, what was asked before by the one
        before. The work is done when the first answer is needed: where all are known already, as
        in a statement that is run again, there is none.

        Raises:
            ValueError: `inputs` and `answers` differ in length.
        """
        from smartsql.gateway.distillation import Lesson

        lesson = Lesson.of(inputs, answers, hints)
        obstacle = lesson.obstacle(self._start, self._parameters.max_classes)
        self._training = _Training(lambda: self._trained(lesson), obstacle)

    def learned(self) -> Classifier | None:
        """What it knows by now, for the next statement; None if nothing."""
        return None if self._training.obstacle else self._training.result().whole

    def _trained(self, lesson: Lesson) -> Taught:
        from smartsql.gateway.distillation import trained

        return trained(lesson, self._parameters, self._start, self._features)

    def _answerer(self, labels: tuple[str, ...], allowance: Allowance | None) -> Answer:
        training = self._training
        if training.obstacle:
            error = f"model {self.name!r} abstains: {training.obstacle}"
            return lambda batch: failed(batch, "empty", error)
        return lambda batch: self._asked(training, labels, batch)

    def _asked(
        self, training: _Training, labels: tuple[str, ...], batch: Sequence[Request]
    ) -> list[Attempt]:
        """A classifier's answers to a batch; what it takes to train it is none of them."""
        began = time.perf_counter()
        load()
        taught = training.result()
        started = time.perf_counter()
        self.ready_s += started - began
        texts = [request.input for request in batch]
        answers, confidences = taught.answered(texts, self._features, labels)
        seconds = (time.perf_counter() - started) / len(batch)
        allowed = set(labels or taught.whole.answers) - {""}
        least = self._parameters.least_confidence
        return [
            Attempt(request.index, True, "ok", answer, confidence, 0, 0, 0.0, seconds)
            if answer in allowed and confidence >= least and request.input.strip()
            else Attempt(request.index, True, "empty", seconds=seconds)
            for request, answer, confidence in zip(batch, answers, confidences, strict=True)
        ]


class _Training:
    """A training that is done when it is first needed.

    Attributes:
        obstacle: why there is none, None if there is.
    """

    def __init__(self, train: Callable[[], Taught], obstacle: str | None) -> None:
        self.obstacle = obstacle
        self._train = train
        self._taught: Taught | None = None
        self._lock = Lock()

    def result(self) -> Taught:
        """What came of it."""
        with self._lock:
            if self._taught is None:
                self._taught = self._train()
            return self._taught


def begun(start: Classifier | None) -> Taught:
    """A model that was taught nothing yet."""
    from smartsql.gateway.distillation import Taught

    assert start is not None
    return Taught(start)
