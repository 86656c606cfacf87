from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

import pytest

from smartsql.errors import ConfigError, GatewayError
from smartsql.gateway import Attempt, Attempts, Price, Request
from smartsql.gateway.local import PythonBackend, resolve_function
from smartsql.gateway.worker import LocalBackend

SECRET = "the text of a cell"


def asked(texts: Sequence[str]) -> list[Request]:
    return [Request(index, text, f"prompt of {text}") for index, text in enumerate(texts)]


def collect(out: Attempts, n: int) -> list[Attempt]:
    found: list[Attempt] = []
    while len(found) < n:
        found += out.get(timeout=10)
    return sorted(found, key=lambda attempt: attempt.index)


def answers(backend: LocalBackend, texts: Sequence[str], **more: object) -> list[Attempt]:
    out: Attempts = SimpleQueue()
    backend.start(asked(texts), (), out, Event(), **more)  # type: ignore[arg-type]
    attempts = collect(out, len(texts))
    backend.close()
    assert out.empty()
    assert [attempt.index for attempt in attempts] == list(range(len(texts)))
    assert all(attempt.final for attempt in attempts)
    return attempts


def shout(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


def test_the_function_sees_the_cells_own_texts_in_order_and_in_batches() -> None:
    sizes: list[int] = []

    def echo(texts: list[str]) -> list[str]:
        sizes.append(len(texts))
        return texts

    texts = [f"row {i}" for i in range(10_000)]
    attempts = answers(PythonBackend("m", echo), texts)
    assert [attempt.text for attempt in attempts] == texts
    assert {attempt.status for attempt in attempts} == {"ok"}
    assert sizes == [1, 4095, 4096, 1808]  # the first call shows what getting ready takes


def saying(items: Sequence[object]) -> Callable[[list[str]], Any]:
    """A function that says these things one after the other, whatever it is asked."""
    left = iter(items)
    return lambda texts: [next(left) for _ in texts]


def test_what_a_function_loads_when_it_is_first_called_is_in_no_answers_cost() -> None:
    ready: list[bool] = []

    def heavy(texts: list[str]) -> list[str]:
        if not ready:
            time.sleep(0.3)
            ready.append(True)
        time.sleep(0.001 * len(texts))
        return texts

    backend = PythonBackend("m", heavy)
    attempts = answers(backend, ["x"] * 20)
    assert [attempt.text for attempt in attempts] == ["x"] * 20
    assert max(attempt.seconds for attempt in attempts) < 0.1
    assert sum(attempt.seconds for attempt in attempts) >= 0.019
    assert backend.ready_s >= 0.25


def test_the_time_of_a_function_that_is_always_slow_is_counted_in_full() -> None:
    def slow(texts: list[str]) -> list[str]:
        time.sleep(0.02 * len(texts))
        return texts

    backend = PythonBackend("m", slow)
    attempts = answers(backend, ["x"] * 10)
    assert sum(attempt.seconds for attempt in attempts) >= 0.19
    assert backend.ready_s < 0.05


def test_a_priced_function_is_asked_in_whole_batches_from_the_first() -> None:
    sizes: list[int] = []

    def echo(texts: list[str]) -> list[str]:
        sizes.append(len(texts))
        return texts

    answers(PythonBackend("m", echo, price=Price(1.0, 1.0, "test")), ["x"] * 10)
    assert sizes == [10]


def test_pairs_carry_confidence_and_none_or_nothing_is_an_empty_answer() -> None:
    items = [("a", 0.25), ("b", None), ("c", 1), None, "", (None, 0.5), ("", 0.5), "d"]
    attempts = answers(PythonBackend("m", saying(items)), ["x"] * len(items))
    assert [(a.status, a.text, a.confidence) for a in attempts] == [
        ("ok", "a", 0.25),
        ("ok", "b", None),
        ("ok", "c", 1.0),
        *[("empty", None, None)] * 4,
        ("ok", "d", None),
    ]


def test_numpy_values_are_taken_as_texts_and_confidences() -> None:
    import numpy as np

    words = np.array(["yes", "no"])
    attempts = answers(PythonBackend("m", saying(words)), ["x", "y"])
    assert [(attempt.status, attempt.text, type(attempt.text)) for attempt in attempts] == [
        ("ok", "yes", str),
        ("ok", "no", str),
    ]
    (attempt,) = answers(PythonBackend("m", lambda texts: [("a", np.float32(0.5))]), ["x"])
    assert attempt.confidence == 0.5
    assert type(attempt.confidence) is float


@pytest.mark.parametrize(
    ("items", "seen"),
    [
        ([7], "an item of type int"),
        ([("a", 1.5)], "a tuple of (str, 1.5)"),
        ([("a", -0.1)], "a tuple of (str, -0.1)"),
        ([("a", float("nan"))], "a tuple of (str, nan)"),
        ([("a", "sure")], "a tuple of (str, str)"),
        ([("a", 0.5, 1)], "a tuple of (str, 0.5, 1)"),
        ([(3, 0.5)], "an item of type int"),
        ([b"bytes"], "an item of type bytes"),
        ([], "returned 0 items for 1 texts"),
        (["a", "b"], "returned 2 items for 1 texts"),
        ("a", "returned str instead of a list"),
        (None, "returned NoneType instead of a list"),
        ({"a": 1}, "returned dict instead of a list"),
        (iter(["a"]), "returned list_iterator instead of a list"),
    ],
)
def test_what_is_no_answer_fails_with_the_models_name_and_without_the_text(
    items: object, seen: str
) -> None:
    def wrong(texts: list[str]) -> Sequence[object]:
        return items  # type: ignore[return-value]

    (attempt,) = answers(PythonBackend("odd", wrong), [SECRET])
    assert attempt.status == "malformed"
    assert attempt.error is not None
    assert "'odd'" in attempt.error
    assert seen in attempt.error
    assert SECRET not in attempt.error


def test_one_wrong_item_does_not_spoil_its_neighbours() -> None:
    attempts = answers(PythonBackend("m", saying(["a", 7, "c"])), ["x", "y", "z"])
    assert [attempt.status for attempt in attempts] == ["ok", "malformed", "ok"]


def test_an_exception_fails_its_batch_only_and_its_message_is_kept_back() -> None:
    def picky(texts: list[str]) -> list[str]:
        if SECRET in texts:
            raise ValueError(f"cannot read {SECRET}")
        return texts

    texts = ["a", "b", SECRET, "c", "d", "e"]
    attempts = answers(PythonBackend("m", picky, batch_rows=2), texts)
    expected = ["ok", "ok", "server_error", "server_error", "ok", "ok"]
    assert [attempt.status for attempt in attempts] == expected
    error = attempts[2].error
    assert error is not None
    assert error.startswith(f"model 'm' raised ValueError at {__file__}:")
    assert SECRET not in error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_whatever_a_function_raises_its_thread_lives_on(error: type[BaseException]) -> None:
    def leaving(texts: list[str]) -> list[str]:
        if "leave" in texts:
            raise error(SECRET)
        return texts

    attempts = answers(PythonBackend("m", leaving, batch_rows=1), ["a", "leave", "b"])
    assert [attempt.status for attempt in attempts] == ["ok", "server_error", "ok"]
    assert str(attempts[1].error).startswith(f"model 'm' raised {error.__name__} at {__file__}:")
    assert SECRET not in str(attempts[1].error)


def test_rows_share_the_batchs_wall_time() -> None:
    def slow(texts: list[str]) -> list[str]:
        time.sleep(0.05)
        return texts

    attempts = answers(PythonBackend("m", slow, batch_rows=5), ["a"] * 10)
    assert len({attempt.seconds for attempt in attempts[:5]}) == 1
    assert 0.1 <= sum(attempt.seconds for attempt in attempts) < 1.0
    assert all(attempt.cost_usd == 0 for attempt in attempts)


def test_cancelling_stops_between_batches_and_every_request_still_ends() -> None:
    cancelled, entered, go_on = Event(), Event(), Event()

    def gate(texts: list[str]) -> list[str]:
        entered.set()
        assert go_on.wait(10)
        return texts

    backend = PythonBackend("m", gate, batch_rows=2)
    out: Attempts = SimpleQueue()
    backend.start(asked("abcdef"), (), out, cancelled)
    assert entered.wait(10)
    cancelled.set()
    go_on.set()
    attempts = collect(out, 6)
    backend.close()
    assert [attempt.status for attempt in attempts] == ["ok"] * 2 + ["cancelled"] * 4
    assert all(attempt.final for attempt in attempts)


def test_closing_ends_what_is_waiting_and_then_refuses() -> None:
    entered, go_on = Event(), Event()

    def gate(texts: list[str]) -> list[str]:
        entered.set()
        assert go_on.wait(10)
        return texts

    backend = PythonBackend("m", gate, batch_rows=1)
    out: Attempts = SimpleQueue()
    backend.start(asked("ab"), (), out, Event())
    backend.start(asked("c"), (), out, Event())
    assert entered.wait(10)
    closer = Thread(target=backend.close)
    closer.start()
    while not backend._closing.is_set():
        time.sleep(0.001)
    go_on.set()
    closer.join()
    statuses = [
        attempt.status for attempt in (out.get(), out.get(), out.get()) for attempt in attempt
    ]
    assert statuses == ["ok", "cancelled", "cancelled"]
    backend.close()
    with pytest.raises(GatewayError, match="'m' was closed"):
        backend.start(asked("a"), (), out, Event())


def test_starting_returns_at_once_and_jobs_are_answered_in_turn_on_one_thread() -> None:
    import threading

    threads: set[str] = set()
    go_on = Event()

    def gate(texts: list[str]) -> list[str]:
        threads.add(threading.current_thread().name)
        assert go_on.wait(10)
        return texts

    backend = PythonBackend("m", gate)
    out: Attempts = SimpleQueue()
    backend.start(asked("ab"), (), out, Event())
    backend.start([], (), out, Event())
    backend.start(asked("cd"), (), out, Event())
    assert out.empty()
    go_on.set()
    first, second = out.get(timeout=10), out.get(timeout=10)
    backend.close()
    assert [a.text for a in first + second] == ["a", "b", "c", "d"]
    assert threads == {"smartsql-m"}


class Purse:
    """An allowance that counts."""

    def __init__(self, usd: float) -> None:
        self.left, self.spent, self._lock = usd, 0.0, Lock()

    def reserve(self, usd: float) -> bool:
        with self._lock:
            if usd > self.left:
                return False
            self.left -= usd
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        with self._lock:
            self.left += reserved_usd - spent_usd
            self.spent += spent_usd


def test_a_priced_function_is_charged_by_its_texts_and_stops_at_the_budget() -> None:
    price = Price(1e6, 1e6, "test")  # a dollar for each token
    purse = Purse(70.0)  # a call may cost 2 + LONGEST_ANSWER_TOKENS, and costs 3
    backend = PythonBackend("m", lambda texts: ["yes!"] * len(texts), price=price)
    attempts = answers(backend, ["a" * 8] * 5, allowance=purse)
    assert [attempt.status for attempt in attempts] == ["ok"] * 2 + ["budget"] * 3
    assert [attempt.cost_usd for attempt in attempts] == [3.0] * 2 + [0.0] * 3
    assert (attempts[0].prompt_tokens, attempts[0].completion_tokens) == (2, 1)
    assert purse.spent == 6.0
    assert purse.left == 64.0


def test_a_priced_function_that_raises_gives_its_reservation_back() -> None:
    def broken(texts: list[str]) -> list[str]:
        raise RuntimeError

    purse = Purse(10.0)
    price = Price(1e6, 0.0, "test")
    (attempt,) = answers(PythonBackend("m", broken, price=price), ["abcd"], allowance=purse)
    assert attempt.status == "server_error"
    assert attempt.cost_usd == 0.0
    assert purse.left == 10.0


def test_only_a_priced_function_is_worth_a_claim() -> None:
    assert not PythonBackend("m", shout).claims
    assert PythonBackend("m", shout, price=Price(1.0, 0.0, "test")).claims


def test_identity_names_model_function_and_version_and_not_the_labels() -> None:
    backend = PythonBackend("m", shout, version="2")
    assert backend.identity(("a",)) == backend.identity(()) == f"python:m:{__name__}:shout@2"
    assert PythonBackend("other", shout, version="2").identity(()) != backend.identity(())
    assert PythonBackend("m", shout, version="3").identity(()) != backend.identity(())


def identity_of(function: Callable[[list[str]], Sequence[object]]) -> str:
    return PythonBackend("m", function).identity(())


def test_without_a_version_edited_code_and_enclosed_values_change_the_identity() -> None:
    def constant(value: object) -> Callable[[list[str]], Sequence[object]]:
        return lambda texts: [value for _ in texts]

    assert identity_of(constant("yes")) == identity_of(constant("yes"))
    assert identity_of(constant("yes")) != identity_of(constant("no"))
    sources = [
        f"def f(texts):\n    return [t.{how}() for t in texts]" for how in ("upper", "lower")
    ]
    spaces: list[dict[str, Callable[[list[str]], Sequence[object]]]] = [{}, {}]
    for source, space in zip(sources, spaces, strict=True):
        exec(source, {"__name__": "mine"}, space)
    first, second = (identity_of(space["f"]) for space in spaces)
    assert first != second
    assert first.startswith("python:m:mine:f@")


def echoed(word: str, texts: list[str]) -> list[str]:
    return [word for _ in texts]


class Model:
    def __init__(self, word: str) -> None:
        self.word = word
        self.tool = object()

    def __call__(self, texts: list[str]) -> list[str]:
        return [self.word for _ in texts]

    def answer(self, texts: list[str]) -> list[str]:
        return self(texts)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda word: functools.partial(echoed, word), "echoed"),
        (Model, "Model"),
        (lambda word: Model(word).answer, "Model.answer"),
    ],
)
def test_callables_that_are_no_functions_are_known_by_what_they_hold(
    make: Callable[[str], Callable[[list[str]], Sequence[object]]], name: str
) -> None:
    assert identity_of(make("a")) == identity_of(make("a"))
    assert identity_of(make("a")) != identity_of(make("b"))
    assert identity_of(make("a")).startswith(f"python:m:{__name__}:{name}@")


def test_a_function_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "class Tool:\n    @staticmethod\n    def answer(texts):\n        return texts\nvalue = 3\n"
    )
    (tmp_path / "my_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "my_typo.py").write_text("x = 1\ndef f(texts)\n    return texts\n")
    (tmp_path / "my_raising.py").write_text("x = 1\n\nraise ValueError('no table')\n")
    (tmp_path / "my_leaving.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "my_outer.py").write_text("import my_typo\n")
    (tmp_path / "my_missing_name.py").write_text("from json import no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert resolve_function("my_models:Tool.answer")(["a"]) == ["a"]
    for text, message in {
        "my_models": "does not name a function",
        ":f": "does not name a function",
        "my_models:": "does not name a function",
        "no_such_module_at_all:f": "cannot import module 'no_such_module_at_all'",
        "my_broken:f": "cannot import module 'my_broken' .*: No module named .* on PYTHONPATH",
        "my_typo:f": r"'my_typo' of .*: SyntaxError at .*/my_typo\.py:2: expected ':'\.$",
        "my_outer:f": r"'my_outer' of .*: SyntaxError at .*/my_typo\.py:2: expected ':'\.$",
        "my_raising:f": r"'my_raising' of .*: ValueError at .*/my_raising\.py:3: no table\.$",
        "my_leaving:f": r"'my_leaving' of .*: SystemExit at .*/my_leaving\.py:2: 3\.$",
        "my_missing_name:f": r"ImportError at .*/my_missing_name\.py:1: cannot import name",
        "my_models:missing": "has no 'missing'",
        "my_models:value": "is int, not a function",
        "..my_models:f": "does not name a function",
    }.items():
        with pytest.raises(ConfigError, match=message):
            resolve_function(text)
    sys.modules.pop("my_models")
