"""Functions over lists of texts as models (`kind = "python"`)."""

from __future__ import annotations

import hashlib
import importlib
import time
from collections.abc import Sequence, Sized
from contextlib import suppress
from dataclasses import replace
from functools import partial
from numbers import Real
from types import CodeType
from typing import Literal

from smartsql.errors import ConfigError
from smartsql.gateway import DELIVERED, Allowance, Attempt, Price, PythonFunction, Request, whole
from smartsql.gateway.worker import BATCH_ROWS, FREE, Answer, LocalBackend, described, failed

Reads = Literal["cell", "prompt"]

LONGEST_ANSWER_TOKENS = 64
"""Assumed of a priced callable when money is set aside for its calls."""


class PythonBackend(LocalBackend):
    """A function over a list of texts as a model.

    It is called with texts, some thousands at a time (the first time with one), on one thread.
    They are the cells' own texts, except in calls whose answers have a type (`smart_filter`,
    `smart_classify`, `smart_extract`): what these ask is in the call alone, so there the texts are
    the prompts that other models get. A function that knows its one question by heart says so by
    `reads = "cell"`.

    It returns one item for each: the answer, `(answer, confidence)` with a confidence in [0, 1],
    or None where it abstains. A batch for which it raises has no answers; a function that may fail
    on some rows should return None for them.

    Args:
        name: the model's name in the configuration.
        function: the callable.
        version: changes when the function's behaviour does, so that answers of the old one are
            not taken for its own; without one, the function's code stands in.
        price: USD per million tokens; tokens of texts are counted as a quarter of their bytes.
        reads: "cell" or "prompt" in all calls; None: the prompt where answers have a type.
    """

    def __init__(
        self,
        name: str,
        function: PythonFunction,
        version: str = "",
        price: Price = FREE,
        *,
        reads: Reads | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        super().__init__(name, price, batch_rows=batch_rows)
        self._function = function
        self._reads = reads
        self._is_cold = True
        # the name too: two objects of one class are two models
        code = version or code_digest(function)
        self._identity = f"python:{name}:{qualified_name(function)}@{code}"
        if reads is not None:
            self._identity += f" reads {reads}"

    def identity(self, labels: tuple[str, ...]) -> str:
        """Names of model and function, and its version; the labels play no part."""
        return self._identity

    def expected_cost_usd(self, request: Request) -> float:
        """The price of the input and of an answer of one word."""
        return 0.0 if self._price.is_free else self._price.cost_usd(tokens(self._text(request)), 1)

    def expected_tokens(self, request: Request) -> tuple[int, int]:
        """Tokens of the input, and of an answer of one word."""
        return tokens(self._text(request)), 1

    def _text(self, request: Request) -> str:
        """What the function is told of a request."""
        if self._reads == "cell" or (self._reads is None and request.form is None):
            return request.input
        return request.prompt

    def _answerer(self, labels: tuple[str, ...], allowance: Allowance | None) -> Answer:
        if self._price.is_free:
            return self._ask
        return lambda batch: self._ask_within(batch, allowance)

    def _ask(self, batch: Sequence[Request]) -> list[Attempt]:
        """Call the function on one batch; where time is its cost, the first time on one text alone.

        What a function imports, loads or compiles when it is first called falls on that one text,
        which then costs no more than the others of the batch. Spread over a pilot it would make
        every answer look dear.
        """
        was_cold, self._is_cold = self._is_cold, False
        if not (was_cold and self._price.is_free and len(batch) > 1):
            return self._called(batch)
        (first,), others = self._called(batch[:1]), self._called(batch[1:])
        usual = others[0].seconds
        self.ready_s = max(0.0, first.seconds - usual)
        return [replace(first, seconds=min(first.seconds, usual)), *others]

    def _called(self, batch: Sequence[Request]) -> list[Attempt]:
        """The function's answers to a batch, each with its share of the time."""
        started = time.perf_counter()
        answers = self._function([self._text(request) for request in batch])
        seconds = (time.perf_counter() - started) / len(batch)
        wrong = wrong_shape(answers, len(batch))
        if wrong:
            return failed(batch, "malformed", f"model {self._name!r} {wrong}", seconds)
        if not self._price.is_free:
            return self._charged(batch, answers, seconds)
        ok = "ok"  # the common case, a plain text, is spelt out: it runs a million times
        return [
            Attempt(request.index, True, ok, answer, None, 0, 0, 0.0, seconds)
            if type(answer) is str and answer and answer.isascii()
            else self._attempt(request, answer, seconds)
            for request, answer in zip(batch, answers, strict=True)
        ]

    def _charged(
        self, batch: Sequence[Request], answers: Sequence[object], seconds: float
    ) -> list[Attempt]:
        """The attempts with their tokens and costs; what gave nothing costs nothing."""
        per_in, per_out = self._price.cost_usd(1, 0), self._price.cost_usd(0, 1)
        charged = []
        for request, answer in zip(batch, answers, strict=True):
            a = self._attempt(request, answer, seconds)
            if a.status in DELIVERED:
                sent, said = tokens(self._text(request)), tokens(a.text or "")
                usd = sent * per_in + said * per_out
                a = Attempt(a.index, True, a.status, a.text, a.confidence, sent, said, usd, seconds)
            charged.append(a)
        return charged

    def _attempt(self, request: Request, answer: object, seconds: float) -> Attempt:
        """One item that the function returned, as an attempt."""
        confidence: float | None = None
        if isinstance(answer, tuple):
            if len(answer) != 2 or not (answer[1] is None or is_confidence(answer[1])):
                return self._malformed(request, f"a tuple of {shape_of(answer)}", seconds)
            confidence = None if answer[1] is None else float(answer[1])
            answer = answer[0]
        if answer is None or (isinstance(answer, str) and not answer):
            return Attempt(request.index, True, "empty", seconds=seconds)
        if not isinstance(answer, str):
            return self._malformed(request, f"an item of type {type(answer).__name__}", seconds)
        return Attempt(request.index, True, "ok", whole(str(answer)), confidence, seconds=seconds)

    def _malformed(self, request: Request, seen: str, seconds: float) -> Attempt:
        """An attempt that says what came instead of an answer."""
        error = (
            f"model {self._name!r} returned {seen}; each item must be a text, a pair of a text "
            f"and a confidence in [0, 1], or None"
        )
        return Attempt(request.index, True, "malformed", seconds=seconds, error=error)

    def _ask_within(self, batch: Sequence[Request], allowance: Allowance | None) -> list[Attempt]:
        """Ask what the budget covers, and charge for it.

        Worst cases are set aside first; what a call did not need pays for the next ones, so that
        the money goes as far as it can.
        """
        attempts: list[Attempt] = []
        while len(attempts) < len(batch):
            rest = batch[len(attempts) :]
            covered, reserved_usd = self._covered(rest, allowance)
            if not covered:
                return attempts + failed(rest, "budget", "the budget does not cover the call")
            charged = self._guarded(self._ask, covered)
            if allowance is not None:
                allowance.settle(reserved_usd, sum([attempt.cost_usd for attempt in charged]))
            attempts += charged
        return attempts

    def _covered(
        self, requests: Sequence[Request], allowance: Allowance | None
    ) -> tuple[Sequence[Request], float]:
        """The first requests whose worst case the budget covers, and what was set aside."""
        sizes = [tokens(self._text(request)) for request in requests]
        worst_usd = self._price.cost_usd(sum(sizes), LONGEST_ANSWER_TOKENS * len(sizes))
        if allowance is None or allowance.reserve(worst_usd):
            return requests, worst_usd
        worst = [self._price.cost_usd(size, LONGEST_ANSWER_TOKENS) for size in sizes]
        covered = 0
        while covered < len(requests) and allowance.reserve(worst[covered]):
            covered += 1
        return requests[:covered], sum(worst[:covered])


def tokens(text: str) -> int:
    """Tokens of a text as a priced callable counts them: a quarter of its bytes, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // 4)


def is_confidence(value: object) -> bool:
    """Whether a value can be taken as a confidence."""
    return isinstance(value, Real) and 0.0 <= float(value) <= 1.0


def shape_of(answer: tuple[object, ...]) -> str:
    """Types of a tuple's items, with numbers by value: "(str, 1.5)"."""
    return f"({', '.join(repr(i) if isinstance(i, Real) else type(i).__name__ for i in answer)})"


def wrong_shape(answers: object, rows: int) -> str | None:
    """What is wrong with the value a function returned for a batch, if anything."""
    if isinstance(answers, (str, bytes, dict, set, frozenset)) or not isinstance(answers, Sized):
        return f"returned {type(answers).__name__} instead of a list with one item for each text"
    if len(answers) != rows:
        return f"returned {len(answers)} items for {rows} texts; it must return one for each"
    return None


def resolve_function(text: str) -> PythonFunction:
    """The function that a text such as "package.module:function" names.

    Raises:
        ConfigError: the text has another form, or names nothing that can be called.
    """
    module_name, colon, path = text.partition(":")
    if not (module_name and colon and path) or module_name.startswith("."):
        raise ConfigError(
            f"{text!r} does not name a function; write it as 'package.module:function'."
        )
    found = imported(module_name, text)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"module {module_name!r} has no {path!r}, which {text!r} names.")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{text!r} is {type(found).__name__}, not a function over texts.")
    return found


def imported(module_name: str, text: str) -> object:
    """The module of the function that `text` names.

    Raises:
        ConfigError: it cannot be found, has a syntax error, or raises when it is imported.
    """
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's code: it may raise anything
        what = f"cannot import module {module_name!r} of function {text!r}"
        said = str(error).rstrip(".")
        if isinstance(error, ModuleNotFoundError):
            raise ConfigError(
                f"{what}: {said}. Install it, or put its folder on PYTHONPATH."
            ) from error
        place = described(error)
        if isinstance(error, SyntaxError):
            place, said = f"{type(error).__name__} at {error.filename}:{error.lineno}", error.msg
        raise ConfigError(f"{what}: {place}{said and ': ' + said}.") from error


def qualified_name(function: object) -> str:
    """Module and name of a callable, or those of its class."""
    while isinstance(function, partial):
        function = function.func
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}:{owner.__qualname__}"


def code_digest(function: object) -> str:
    """Digest of a callable's own code and of the plain values that it holds.

    Those are defaults, enclosed variables, the arguments of a partial, the attributes of an
    object. It tells an edited function from the old one. It cannot see files, globals, or the
    functions that this one calls: where those change, the configuration gives a version.
    """
    state = hashlib.blake2b(digest_size=8)
    add_callable(state, function)
    return state.hexdigest()


def add_callable(state: hashlib.blake2b, function: object) -> None:
    """Feed the code and the plain values of a callable."""
    if isinstance(function, partial):
        state.update(plain((function.args, tuple(sorted(function.keywords.items())))))
        add_callable(state, function.func)
        return
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        code = getattr(type(function).__call__, "__code__", None)
    if isinstance(code, CodeType):
        add_code(state, code)
    state.update(plain(getattr(function, "__defaults__", None)))
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # a cell that is not filled yet
            state.update(plain(cell.cell_contents))
    owner = getattr(function, "__self__", function)
    for item in sorted(getattr(owner, "__dict__", {}).items()):
        state.update(plain(item))


def add_code(state: hashlib.blake2b, code: CodeType) -> None:
    """Feed instructions, names and constants of a code object, nested functions included."""
    state.update(code.co_code)
    state.update(repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            add_code(state, constant)
        else:
            state.update(plain(constant))


def plain(value: object) -> bytes:
    """A plain value by content, anything else by its type (its repr may hold an address)."""
    if isinstance(value, frozenset):  # in no order of its own
        return b"".join(sorted(plain(item) for item in value))
    if isinstance(value, tuple):
        return b"(" + b",".join(plain(item) for item in value) + b")"
    is_plain = value is None or isinstance(value, (str, bytes, int, float, complex))
    return repr(value if is_plain else type(value)).encode("utf-8", "surrogatepass")
