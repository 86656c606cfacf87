"""A local classifier that learns from the reference's own answers (`kind = "learned"`).

Hashed words, pairs of words and fragments of words, and a logistic regression over them: no
download, no language of its own, milliseconds to train, tens of thousands of texts a second to
ask. It is right to expect little of it on few or subtle answers; the audit decides whether it
may stand in.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from smartsql.errors import ConfigError, MissingExtraError
from smartsql.gateway import Allowance, Attempt, Request
from smartsql.gateway.worker import Answer, LocalBackend, failed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WORD = r"(?u)\b\w+\b"


@dataclass(frozen=True, slots=True)
class LearnedParameters:
    """What a `learned` model takes as `parameters`.

    Attributes:
        strength: inverse of the regularisation (`C`); larger fits the training set closer.
        max_classes: answers that it tells apart at most; with more it abstains.
        hash_bits: each of the two groups of features has 2 ** hash_bits columns.
    """

    strength: float = 3.0
    max_classes: int = 50
    hash_bits: int = 18

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
        ranges = {"strength": (1e-3, 1e3), "max_classes": (2, 1000), "hash_bits": (8, 22)}
        for key, value in values.items():
            low, high = ranges[key]
            is_number = type(value) is int or (key == "strength" and type(value) is float)
            if not is_number or not low <= value <= high:
                kind = "number" if key == "strength" else "whole number"
                raise ConfigError(
                    f"model {name!r} has {key} = {value!r}; it must be a {kind} from {low:g} to "
                    f"{high:g}."
                )
        return LearnedParameters(**values)


class Classifier:
    """A fitted classifier; immutable, for any thread.

    Args:
        inputs, answers: the training set; at least two different answers.
    """

    def __init__(
        self, inputs: Sequence[str], answers: Sequence[str], parameters: LearnedParameters
    ) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        self._bits = parameters.hash_bits
        features = featured(inputs, self._bits)
        # only columns that occur can have a weight, so the solver need not see the others
        self._columns = features.getnnz(axis=0).nonzero()[0]
        # the dual solver, one answer against the rest: seconds where a joint fit takes minutes
        one = LogisticRegression(
            C=parameters.strength,
            solver="liblinear",
            dual=True,
            tol=0.01,
            max_iter=10_000,
            random_state=0,
        )
        self._answers = sorted(set(answers))
        codes = {answer: code for code, answer in enumerate(self._answers)}
        self._model = OneVsRestClassifier(one) if len(codes) > 2 else one
        self._model.fit(features[:, self._columns], [codes[answer] for answer in answers])

    def answered(self, inputs: Sequence[str]) -> tuple[list[str], list[float]]:
        """The likeliest answer for each text, and its probability."""
        odds = self._model.predict_proba(featured(inputs, self._bits)[:, self._columns])
        best = odds.argmax(axis=1)
        confidences = odds.max(axis=1).clip(0.0, 1.0)  # a sum of shares may pass 1 by rounding
        return [self._answers[code] for code in best.tolist()], confidences.tolist()


class LearnedBackend(LocalBackend):
    """A model that answers as the reference did on similar texts.

    It abstains (status "empty") until it was trained on at least two different answers, and
    where there are more than `max_classes` of them: then they are no labels but free text.

    Args:
        name: the model's name in the configuration.
        parameters: see `LearnedParameters`.

    Raises:
        ConfigError: the parameters cannot be used.
        MissingExtraError: scikit-learn is not installed.
    """

    def __init__(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        super().__init__(name)
        if importlib.util.find_spec("sklearn") is None:
            raise MissingExtraError("scikit-learn", "ml", f"model {name!r}")
        self._parameters = LearnedParameters.of(name, parameters or {})
        self._classifier: Classifier | None = None
        self._reason = "it was not trained"

    def identity(self, labels: tuple[str, ...]) -> str:
        """The hyperparameters.

        The training set is not among them: whoever asks for the training knows it and keeps the
        answers of different fits apart. A statement's identities must not depend on what was
        trained before it.
        """
        return f"learned:{json.dumps(asdict(self._parameters))}"

    def fork(self) -> LearnedBackend:
        """An untrained model of the same configuration, for one statement alone."""
        return LearnedBackend(self._name, asdict(self._parameters))

    def fit(self, inputs: Sequence[str], answers: Sequence[str]) -> None:
        """Train on normalised reference answers; the order of the pairs plays no part.

        Asks that were started before keep the model that they were started with.

        Raises:
            ValueError: the two sequences differ in length.
        """
        pairs = sorted(zip(inputs, answers, strict=True))
        classes = Counter(answer for _, answer in pairs)
        reason = None
        if len(classes) < 2:
            reason = f"its training set of {len(pairs)} has fewer than two different answers"
        elif len(classes) > self._parameters.max_classes:
            reason = (
                f"its training set has {len(classes)} different answers, more than max_classes = "
                f"{self._parameters.max_classes}"
            )
        texts, said = [text for text, _ in pairs], [answer for _, answer in pairs]
        self._classifier = None if reason else Classifier(texts, said, self._parameters)
        self._reason = reason or ""

    def _answerer(self, labels: tuple[str, ...], allowance: Allowance | None) -> Answer:
        classifier, reason = self._classifier, self._reason
        if classifier is None:
            error = f"model {self.name!r} abstains: {reason}"
            return lambda batch: failed(batch, "empty", error)
        return lambda batch: asked(classifier, batch)


def asked(classifier: Classifier, batch: Sequence[Request]) -> list[Attempt]:
    """The classifier's answers to a batch."""
    started = time.perf_counter()
    answers, confidences = classifier.answered([request.input for request in batch])
    seconds = (time.perf_counter() - started) / len(batch)
    return [
        Attempt(request.index, True, "ok", answer, confidence, 0, 0, 0.0, seconds)
        if answer
        else Attempt(request.index, True, "empty", seconds=seconds)
        for request, answer, confidence in zip(batch, answers, confidences, strict=True)
    ]


def featured(texts: Sequence[str], bits: int) -> csr_matrix:
    """Hashed features of texts, shape (n_texts, 2 ** (bits + 1)).

    Words and pairs of words in one group, runs of four characters within words in the other
    (they see through inflection, compounds and misspellings, and serve languages without
    spaces). Counts are sublinear; each group has length one, so that a long text speaks no
    louder than a short one and fragments no louder than words.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    # a cell may hold half a surrogate pair, which has no UTF-8 to hash
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    groups = []
    for analyzer, runs in (("word", (1, 2)), ("char_wb", (4, 4))):
        hashing = HashingVectorizer(
            analyzer=analyzer,
            ngram_range=runs,
            token_pattern=WORD if analyzer == "word" else None,
            n_features=2**bits,
            alternate_sign=False,
            norm=None,
        )
        counts = hashing.transform(clean)
        counts.data = 1.0 + np.log(counts.data)
        groups.append(normalize(counts, copy=False))
    features: csr_matrix = hstack(groups, format="csr")
    return features
