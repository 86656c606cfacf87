"""What was learned, kept beside the ledger for the next statement of the same task.

A file holds the weights of one classifier: plain arrays and a header in JSON, no code. Its name
tells the task, the models and the content, so that files are only added, never changed, and a
statement that began with one finds it again. The newest is the one to start from; a few older
ones stay for statements that were interrupted.

A file that cannot be read, or is of something else than its name says, is left alone and not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smartsql.gateway.classifier import Classifier
from smartsql.gateway.learned_features import VERSION as FEATURES
from smartsql.tasks import Task

logger = logging.getLogger(__name__)

FORMAT = 1
LEARNED = ".learned"
"""Added to the ledger's path for the folder beside it."""
VERSIONS = 4
"""Files that are kept of each task."""
MOST_BYTES = 1 << 30
"""A larger file is none of ours."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a classifier is about: it is of use for nothing else.

    Attributes:
        task: the task's definition.
        reference: identity of the model whose answers it learned.
        learner: identity of the learning model.
    """

    task: Task
    reference: str
    learner: str

    @property
    def is_a_task(self) -> bool:
        """Whether prompts of this kind have anything in common."""
        return bool(self.task.labels) or self.task.template is not None

    def header(self) -> dict[str, object]:
        """The same as a JSON object."""
        return {
            "format": FORMAT,
            "features": FEATURES,
            "template": self.task.template,
            "labels": list(self.task.labels),
            "equal": self.task.equal,
            "reference": self.reference,
            "learner": self.learner,
        }

    def key(self) -> str:
        """A short text that is its own."""
        text = json.dumps(self.header(), sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


class Kept:
    """The classifiers beside a ledger.

    Args:
        store: the ledger's file; ":memory:" keeps nothing.
    """

    def __init__(self, store: str) -> None:
        self._folder = None if store == ":memory:" else Path(store + LEARNED)
        self.notes: list[str] = []

    def latest(self, subject: Subject) -> str | None:
        """Digest of the newest usable classifier of a subject, None if there is none."""
        if not subject.is_a_task:
            return None
        digests = [path.name.split(".")[1] for path in self._files(subject)]
        return next((d for d in digests if self.load(subject, d) is not None), None)

    def load(self, subject: Subject, digest: str) -> Classifier | None:
        """The classifier of a digest, None if it is not there or cannot be used."""
        path = self._path(subject, digest)
        if path is None or not path.is_file():
            return None
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("it is too large")
            # np.load leaves a file open that it cannot read
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                header = json.loads(bytes(arrays["header"]))
                found = _classifier(header, arrays["columns"], arrays["weights"])
            if {key: header.get(key) for key in subject.header()} != subject.header():
                raise ValueError("it belongs to another task or model")
            if digest_of(found) != digest:
                raise ValueError("its content is not what its name says")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self._complain(path, error)
            return None
        return found

    def _complain(self, path: Path, error: Exception) -> None:
        """One note on each file, however often it is met."""
        # what numpy says of a file advises to load it as code
        why = "it is damaged" if "pickle" in str(error) else str(error)
        note = (
            f"what was learned earlier is not used: {str(path)!r} cannot be read ({why}). It may "
            f"be removed."
        )
        if note not in self.notes:
            self.notes.append(note)

    def save(self, subject: Subject, classifier: Classifier) -> str | None:
        """Keep a classifier; its digest, None where nothing is kept.

        A classifier that has seen fewer answers than the newest one does not displace it.
        """
        if self._folder is None or not subject.is_a_task:
            return None
        newest = self.latest(subject)
        known = self.load(subject, newest) if newest else None
        if known is not None and known.labels > classifier.labels:
            return None
        digest = digest_of(classifier)
        path = self._path(subject, digest)
        assert path is not None
        try:
            self._write(path, subject, classifier)
            for old in self._files(subject)[VERSIONS:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("what was learned cannot be kept in %s: %s", self._folder, error)
            return None
        return digest

    def _write(self, path: Path, subject: Subject, classifier: Classifier) -> None:
        """Write beside the place and move there: no reader ever sees a part of a file."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        header = subject.header() | _described(classifier)
        draft = path.with_name(f"{uuid.uuid4().hex}.part")
        try:
            # readable by its owner alone, like the ledger
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                np.savez(
                    file,
                    header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
                    columns=classifier.columns.astype("<i4"),
                    weights=classifier.weights.astype("<f4"),
                )
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _path(self, subject: Subject, digest: str) -> Path | None:
        return self._folder and self._folder / f"{subject.key()}.{digest}.npz"

    def _files(self, subject: Subject) -> list[Path]:
        """The files of a subject, newest first."""
        if self._folder is None or not self._folder.is_dir():
            return []
        found = []
        for path in self._folder.glob(f"{subject.key()}.*.npz"):
            try:
                found.append((-path.stat().st_mtime_ns, path.name, path))
            except FileNotFoundError:  # another process has just removed it
                continue
        return [path for _, _, path in sorted(found)]


def digest_of(classifier: Classifier) -> str:
    """Digest of everything that decides what a classifier answers."""
    total = hashlib.blake2b(digest_size=16)
    total.update(json.dumps(_described(classifier), sort_keys=True).encode())
    total.update(np.ascontiguousarray(classifier.columns, dtype="<i8").tobytes())
    total.update(np.ascontiguousarray(classifier.weights, dtype="<f4").tobytes())
    return total.hexdigest()


def _described(classifier: Classifier) -> dict[str, object]:
    return {
        "answers": list(classifier.answers),
        "temperature": classifier.temperature,
        "unseen": classifier.unseen,
        "seen": classifier.labels,
    }


def _classifier(header: dict[str, object], columns: np.ndarray, weights: np.ndarray) -> Classifier:
    """The classifier that a file describes.

    Raises:
        ValueError, KeyError, TypeError: it describes none.
    """
    answers = header["answers"]
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise ValueError("its answers are no texts")
    if len(answers) < 2 or sorted(set(answers)) != answers:
        raise ValueError("its answers are not in order")
    shape = (len(answers), columns.size + 1)
    if columns.ndim != 1 or columns.dtype != np.dtype("<i4") or weights.shape != shape:
        raise ValueError(f"its arrays are of the shapes {columns.shape} and {weights.shape}")
    if not np.isfinite(weights).all() or (np.diff(columns) <= 0).any() or (columns < 0).any():
        raise ValueError("its numbers are out of range")
    values = [header[key] for key in ("temperature", "unseen", "seen")]
    if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in values):
        raise ValueError("its figures are no numbers")
    warmth, unseen, seen = (float(str(v)) for v in values)
    if warmth <= 0.0 or not 0.0 <= unseen < 1.0 or seen < 0:
        raise ValueError("its figures are out of range")
    return Classifier(
        tuple(answers),
        columns.astype(np.int64),
        weights.astype(np.float64),
        warmth,
        unseen,
        int(seen),
    )
