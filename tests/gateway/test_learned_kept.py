"""What was learned, on disk: only what is ours and whole is used."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartsql.gateway.classifier import Classifier
from smartsql.gateway.kept import VERSIONS, Kept, Subject, digest_of
from smartsql.tasks import Task

SUBJECT = Subject(Task("t", "Tone of {input}?", ("a", "b")), "big", "learned:{}")


def made(seed: int = 0, labels: int = 50) -> Classifier:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2, 21)).astype(np.float32).astype(np.float64)
    columns = np.sort(rng.choice(1000, 20, replace=False)).astype(np.int64)
    return Classifier(("a", "b"), columns, weights, 1.25, 0.0, labels)


def files(store: Path) -> list[Path]:
    return sorted(Path(f"{store}.learned").iterdir())


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    store = tmp_path / "l.sqlite"
    classifier = made()
    digest = Kept(str(store)).save(SUBJECT, classifier)
    assert digest == digest_of(classifier)
    kept = Kept(str(store))
    assert kept.latest(SUBJECT) == digest
    found = kept.load(SUBJECT, digest)
    assert found is not None
    assert digest_of(found) == digest
    assert (found.weights == classifier.weights).all()
    assert (found.columns == classifier.columns).all()
    assert (found.temperature, found.labels, found.answers) == (1.25, 50, ("a", "b"))
    assert kept.notes == []


@pytest.mark.parametrize(
    "other",
    [
        replace(SUBJECT, reference="bigger"),
        replace(SUBJECT, learner='learned:{"strength": 1.0}'),
        replace(SUBJECT, task=Task("t", "Tone of {input}!", ("a", "b"))),
        replace(SUBJECT, task=Task("t", "Tone of {input}?", ("a", "b", "c"))),
        replace(SUBJECT, task=Task("t", "Tone of {input}?", (), "json")),
    ],
)
def test_nothing_of_another_subject_is_used(tmp_path: Path, other: Subject) -> None:
    kept = Kept(str(tmp_path / "l.sqlite"))
    digest = kept.save(SUBJECT, made())
    assert digest is not None
    assert kept.latest(other) is None
    # not even under the name of the other
    (file,) = files(tmp_path / "l.sqlite")
    file.rename(file.with_name(f"{other.key()}.{digest}.npz"))
    assert kept.latest(other) is None
    assert "belongs to another task or model" in kept.notes[-1]


def test_the_name_of_the_task_does_not_matter(tmp_path: Path) -> None:
    kept = Kept(str(tmp_path / "l.sqlite"))
    digest = kept.save(SUBJECT, made())
    renamed = replace(SUBJECT, task=Task("tone", "Tone of {input}?", ("a", "b")))
    assert kept.latest(renamed) == digest


def rewritten(path: Path, **changes: Any) -> None:
    with path.open("rb") as file, np.load(file) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    header = json.loads(bytes(values["header"]))
    for key, value in changes.items():
        if key in values:
            values[key] = value
        else:
            header[key] = value
    values["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, **values)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": 2}, "belongs to another"),
        ({"seen": 51}, "its content is not what its name says"),
        ({"temperature": 0.0}, "out of range"),
        ({"temperature": "warm"}, "no numbers"),
        ({"answers": ["b", "a"]}, "not in order"),
        ({"answers": ["a", 3]}, "no texts"),
        ({"weights": np.zeros((2, 3), dtype="<f4")}, "shapes"),
        ({"weights": np.full((2, 21), np.nan, dtype="<f4")}, "out of range"),
        ({"columns": np.zeros(20, dtype="<i4")}, "out of range"),
        ({"columns": np.zeros(20, dtype="<f8")}, "shapes"),
    ],
)
def test_a_file_that_was_changed_is_not_used_and_says_why(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    store = tmp_path / "l.sqlite"
    kept = Kept(str(store))
    kept.save(SUBJECT, made())
    rewritten(files(store)[0], **changes)
    assert kept.latest(SUBJECT) is None
    assert why in kept.notes[-1]


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    store = tmp_path / "l.sqlite"
    kept = Kept(str(store))
    kept.save(SUBJECT, made())
    rewritten(files(store)[0], weights=np.array([{"an": "object"}], dtype=object))
    assert kept.latest(SUBJECT) is None
    assert "it is damaged" in kept.notes[-1]
    assert "pickle" not in kept.notes[-1]  # numpy advises to load it as code


def test_the_newest_is_the_start_older_ones_stay_for_a_while(tmp_path: Path) -> None:
    store = tmp_path / "l.sqlite"
    kept = Kept(str(store))
    digests = []
    for number in range(VERSIONS + 2):
        digest = kept.save(SUBJECT, made(number))
        assert digest is not None
        digests.append(digest)
        path = next(p for p in files(store) if digest in p.name)
        os.utime(path, ns=(number * 10**9, number * 10**9))  # clocks may be coarse
    assert kept.latest(SUBJECT) == digests[-1]
    assert {p.name.split(".")[1] for p in files(store)} == set(digests[-VERSIONS:])


def test_a_smaller_lesson_does_not_displace_a_larger_one(tmp_path: Path) -> None:
    kept = Kept(str(tmp_path / "l.sqlite"))
    digest = kept.save(SUBJECT, made(1, labels=500))
    assert kept.save(SUBJECT, made(2, labels=499)) is None
    assert kept.latest(SUBJECT) == digest


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    store = tmp_path / "l.sqlite"
    Path(f"{store}.learned").write_text("a file where the folder should be")
    kept = Kept(str(store))
    assert kept.save(SUBJECT, made()) is None
    assert kept.latest(SUBJECT) is None


def _save_many(store: str, seed: int) -> None:
    kept = Kept(store)
    for number in range(15):
        kept.save(SUBJECT, made(100 * seed + number))


def test_processes_that_keep_at_once_never_tear_a_file(tmp_path: Path) -> None:
    store = str(tmp_path / "l.sqlite")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_save_many, args=(store, seed)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    reader = Kept(store)
    while any(writer.is_alive() for writer in writers):
        reader.latest(SUBJECT)
    for writer in writers:
        writer.join(timeout=30)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert reader.notes == []
    assert reader.latest(SUBJECT) is not None
    assert not [p for p in files(tmp_path / "l.sqlite") if p.suffix == ".part"]


def test_a_damaged_file_is_told_once_however_often_it_is_met(tmp_path: Path) -> None:
    store = tmp_path / "l.sqlite"
    kept = Kept(str(store))
    kept.save(SUBJECT, made())
    files(store)[0].write_bytes(b"no archive")
    for _ in range(3):
        assert kept.latest(SUBJECT) is None
    assert len(kept.notes) == 1
    assert str(files(store)[0]) in kept.notes[0]
