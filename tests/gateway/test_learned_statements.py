"""Learning models in whole statements: asked anew, run again, verified, kept for the next one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from smartsql.asking.learners import FROM, TRAINED
from smartsql.asking.memory import mixed
from smartsql.config import load
from smartsql.engine import Answered, Engine
from smartsql.gateway import Backend
from smartsql.ledger import Ledger
from smartsql.policies import Steps
from smartsql.population import Population
from smartsql.profile import Problem, Profile
from smartsql.reports.report import Report
from smartsql.reports.verify import verify
from smartsql.sql.protocol import Call
from smartsql.types import Ask, Candidate, Plan, Requirement
from tests.helpers import ScriptedBackend

pytest.importorskip("sklearn")

from smartsql.gateway.learned import LearnedBackend

CALL = Call("review", 0.1, 0.95, None)
FILE = """
default_task = "tone"
[[models]]
name = "big"
reference = true
[[models]]
name = "small"
[[models]]
name = "student"
kind = "learned"
[tasks.tone]
prompt = "Tone of {input}?"
labels = ["good", "bad"]
"""
GOOD = ("great", "superb", "lovely", "moving", "clever")
BAD = ("dull", "awful", "clumsy", "stale", "lifeless")
TEXTS = [f"{w} {i % 17} film {i}" for i in range(24) for w in (*GOOD, *BAD)]


def truth(text: str) -> str:
    return "good" if text.split(maxsplit=1)[0] in GOOD else "bad"


def small(text: str) -> str:
    """Agrees with the truth on four of five texts."""
    is_off = hashlib.blake2b(text.encode()).digest()[0] % 5 == 0
    return {"good": "bad", "bad": "good"}[truth(text)] if is_off else truth(text)


class Teaches:
    """Trains the student twice, has it answer all rows each time, and then the open ones."""

    name = "teaches"

    def __init__(self, batches: Sequence[int] = (30, 60)) -> None:
        self.batches = batches
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def steps(self, problem: Problem, profile: Profile) -> Steps:
        every = np.arange(problem.population.n_prompts)
        yield [Ask("small", every), Ask("student", every)]
        self._note(profile)
        for batch in self.batches:
            yield [Ask("big", problem.population.prompts_between(0, batch))]
            yield [Ask("student", every, fit=True, anew=True)]
            self._note(profile)
        assigned = np.where(profile.codes("big") >= 0, 0, 2)
        rounded = profile.confidences("student").round(9)
        digest = hashlib.blake2b(rounded.tobytes() + profile.codes("student").tobytes())
        facts = {"student": digest.hexdigest()}
        return Plan(assigned, bound=0.1, audited_rows=batch, certificate=facts)

    def _note(self, profile: Profile) -> None:
        self.seen.append((profile.codes("student").copy(), profile.confidences("student").copy()))


class World:
    """An engine with a scripted reference, a scripted helper and a student."""

    def __init__(
        self, folder: Path, parameters: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        (folder / "smartsql.toml").write_text(FILE)
        self.path = folder / "answers.sqlite"
        store = settings.pop("store", str(self.path))
        self.settings = load(folder / "smartsql.toml", store=store, **settings)
        self.big = ScriptedBackend("big", truth, 0.01)
        self.small = ScriptedBackend("small", small, 0.0001, confidence=lambda text: 0.8)
        self.parameters = parameters or {}
        self.policy = Teaches()

    def run(self, texts: Sequence[str] = TEXTS, call: Call = CALL) -> tuple[Answered, Report]:
        student = LearnedBackend("student", self.parameters)
        backends: dict[str, Backend] = {"big": self.big, "small": self.small, "student": student}
        ledger = Ledger(self.settings.store)
        self.policy = Teaches(self.policy.batches)
        engine = Engine(self.settings, backends, ledger, policy=self.policy)
        answers = engine.answer(call, pa.array(texts), np.ones(len(texts), dtype=np.int64))
        engine.close()
        return answers, engine.history[-1]

    def failures(self, report: Report, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr("smartsql.reports.verify._policy", lambda strategy: Teaches())
        monkeypatch.setattr("smartsql.reports.verify._certificate", lambda said: [])
        checks = verify(report.to_dict(), Ledger(self.path))
        found = [f"{c.what}: {c.detail}" for c in checks if not c.holds]
        decided = {"certificate of the run", "who answers each row"}
        assert found or decided <= {c.what for c in checks}
        return found

    def files(self) -> list[Path]:
        return sorted(Path(f"{self.path}.learned").glob("*"))

    def student(self, report: Report) -> str:
        return next(m.identity for m in report.models if m.name == "student")


def agreed(answers: Answered) -> float:
    right = [truth(text) for text in TEXTS]
    return float(np.mean([a == b for a, b in zip(answers.answer.to_pylist(), right, strict=True)]))


# ---- anew


def test_an_ask_that_would_only_repeat_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="anew without being trained"):
        Ask("student", np.arange(2), anew=True)


def test_only_learning_models_may_answer_a_prompt_again() -> None:
    population = Population.in_order(np.arange(4), np.ones(4, dtype=np.int64))
    big, small = Candidate("big", 1.0), Candidate("small", 0.1)
    student = Candidate("student", 0.0, learns=True)
    profile = Profile(Problem(Requirement(0.1, 0.95), population, big, (small, student)))
    at, codes = np.array([1, 2]), np.array([0, 1], dtype=np.int32)
    for model in ("small", "student"):
        profile.record(model, at, codes, np.array([0.1, 0.2]), np.array([0.6, 0.7]))
    with pytest.raises(AssertionError):
        profile.record("small", at, codes, np.zeros(2))
    profile.record("student", at[:1], codes[1:], np.array([0.3]))
    assert profile.codes("student").tolist() == [-1, 1, 1, -1]
    assert profile.costs("student").tolist() == pytest.approx([0, 0.4, 0.2, 0])
    assert np.isnan(profile.confidences("student")[1])
    assert profile.n_asked("student") == 3
    assert profile.mean_cost("student") == pytest.approx(0.2)


def test_answers_of_a_later_training_replace_those_of_an_earlier_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    answers, report = world.run()
    (untaught, unsure), (once, sure_once), (twice, sure_twice) = world.policy.seen
    assert (untaught < 0).all()
    assert np.isnan(unsure).all()
    assert (once >= 0).all()
    assert (twice >= 0).all()
    assert (sure_once != sure_twice).mean() > 0.9
    assert sure_twice.mean() > sure_once.mean()
    student = next(m for m in report.models if m.name == "student")
    assert student.calls == 3 * len(TEXTS)
    assert agreed(answers) > 0.95
    assert set(answers.source.to_pylist()) == {"reference", "assigned"}


def test_a_statement_that_trains_again_and_again_can_be_rerun_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, {"distils": "small"})
    first, report = world.run()
    asked = sum(world.big.asked.values())
    with monkeypatch.context() as patch:
        patch.setattr("smartsql.gateway.distillation.trained", None)  # nothing is trained again
        again, second = world.run()
    assert sum(world.big.asked.values()) == asked
    assert again.answer.to_pylist() == first.answer.to_pylist()
    assert second.answers_digest == report.answers_digest
    assert second.certificate == report.certificate
    assert world.failures(report, monkeypatch) == []
    assert world.failures(second, monkeypatch) == []


def test_each_training_keeps_its_answers_under_an_identity_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path)
    _, report = world.run()
    identities = Ledger(world.path).totals_of_run(report.run)
    base = world.student(report)
    mine = [i for i in identities if i.startswith(base)]
    assert sorted(i.partition(TRAINED)[0] for i in mine) == [base] * 3
    assert len(set(mine)) == 3


def test_an_answer_is_cached_only_if_the_last_training_gave_it_earlier(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.policy.batches = (30,)
    world.run()
    world.policy.batches = (30, 60)  # as if the first run had been interrupted
    answers, _ = world.run()
    by = zip(answers.model.to_pylist(), answers.source.to_pylist(), strict=True)
    assert {source for model, source in by if model == "student"} == {"assigned"}
    again, _ = world.run()
    assert set(again.source.to_pylist()) == {"cached"}


# ---- a cheap model's answers as a first lesson


def test_the_cheap_model_teaches_only_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    alone, distils = World(tmp_path / "a", seed=4), World(tmp_path / "b", {"distils": "small"})
    distils.settings = distils.settings.model_copy(update={"seed": 4})
    for world in (alone, distils):
        world.policy.batches = (6,)
        world.run()
    assert alone.small.asked == distils.small.asked

    def right(world: World) -> float:
        texts = sorted(TEXTS, key=lambda t: hashlib.blake2b(
            f"Tone of {t}?".encode(), digest_size=16).digest())  # fmt: skip
        codes = world.policy.seen[-1][0]
        good = np.array([truth(text) == "good" for text in texts])
        return max(float((codes == code)[good].mean() / 2 + (codes != code)[~good].mean() / 2)
                   for code in (0, 1))  # fmt: skip

    assert right(distils) > 0.95 > right(alone)


def test_a_changed_hint_is_found_by_the_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, {"distils": "small"})
    _, report = world.run()
    ledger = Ledger(world.path)
    ledger._db.execute(
        "UPDATE answers SET confidence = 0.1 WHERE identity = "
        "(SELECT id FROM identities WHERE model = 'small')"
    )
    assert any("are not in the ledger" in f for f in world.failures(report, monkeypatch))


# ---- kept for the next statement


def test_the_next_statement_of_the_task_starts_with_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    _, first = world.run()
    assert FROM not in world.student(first)
    (file,) = world.files()
    assert file.stat().st_mode & 0o077 == 0
    answers, second = world.run([f"{text} again" for text in TEXTS])
    assert world.student(second).startswith(world.student(first) + FROM)
    assert file.name.split(".")[1] == world.student(second).partition(FROM)[2]
    untaught = world.policy.seen[0][0]
    assert (untaught >= 0).all()  # useful before the first label
    assert agreed(answers) > 0.95
    for report in (first, second):
        assert world.failures(report, monkeypatch) == []
    for path in world.files():
        path.unlink()  # a verification does not need them
    assert world.failures(second, monkeypatch) == []


def test_a_rerun_starts_where_the_statement_started_whatever_was_learned_since(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    _, first = world.run()
    world.run([f"{text} again" for text in TEXTS])
    assert len(world.files()) == 2
    asked = sum(world.big.asked.values())
    _, again = world.run()
    assert world.student(again) == world.student(first)
    assert again.answers_digest == first.answers_digest
    assert sum(world.big.asked.values()) == asked


def test_a_statement_whose_start_is_gone_repeats_what_is_known_and_else_abstains(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.run()
    other = [f"{text} again" for text in TEXTS]
    world.policy.batches = (30,)
    _, report = world.run(other)
    for path in world.files():
        path.unlink()
    _, again = world.run(other)
    assert again.answers_digest == report.answers_digest
    world.policy.batches = (30, 90)  # as if the first run had been interrupted
    answers, longer = world.run(other)
    assert world.student(longer) == world.student(report)
    assert (world.policy.seen[-1][0] < 0).all()
    assert set(answers.model.to_pylist()) == {"big"}


def test_a_configured_order_is_not_used_again_with_what_was_learned_in_it(tmp_path: Path) -> None:
    world = World(tmp_path, seed=7)
    _, first = world.run()
    assert first.seed == 7
    _, other_promise = world.run(TEXTS, Call("review", 0.2, 0.95, None))
    digest = world.student(other_promise).partition(FROM)[2]
    assert other_promise.seed == mixed(7, {"student": digest}) != 7
    assert mixed(7, {}) == 7
    _, again = world.run()
    assert again.seed == 7


def test_other_tasks_references_and_parameters_start_from_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run()
    texts = [f"{text} again" for text in TEXTS]
    world.parameters = {"strength": 1.0}
    assert FROM not in world.student(world.run(texts)[1])
    world.parameters = {}
    world.big.identity = lambda labels: "scripted:bigger"  # type: ignore[method-assign]
    assert FROM not in world.student(world.run(texts)[1])


def test_a_store_in_memory_and_prompts_without_a_task_keep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    World(tmp_path, store=":memory:").run()
    world = World(tmp_path)
    world.settings = world.settings.model_copy(update={"default_task": None})
    world.run()
    assert not world.files()
    assert not list(tmp_path.glob("*.learned"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"not an archive at all"])
def test_a_file_that_cannot_be_read_is_left_alone_with_a_note(
    tmp_path: Path, content: bytes
) -> None:
    world = World(tmp_path)
    world.run()
    (file,) = world.files()
    file.write_bytes(content)
    _, report = world.run([f"{text} again" for text in TEXTS])
    assert FROM not in world.student(report)
    assert any("what was learned earlier is not used" in note for note in report.notes)
    assert file.read_bytes() == content
