"""What may be configured: models, tasks and settings, with the types of their values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from smartsql.errors import ConfigError
from smartsql.gateway.urls import checked_hosts
from smartsql.tasks import Equality, Step, Task

OPENAI_URL = "https://api.openai.com/v1"
FILE_NAME = "smartsql.toml"
ENV_PREFIX = "SMARTSQL_"
MOST_SEED = 2**63 - 1
"""The largest integer of the ledger."""
NAME_OF_KEY = (
    "api_key_env must be the NAME of an environment variable that holds the key, such as "
    "OPENAI_API_KEY; the key itself does not belong in a configuration"
)
NAME_OF_SECRET = (
    "api_key_secret must be the NAME of a secret of DuckDB (CREATE PERSISTENT SECRET name (TYPE "
    "http, BEARER_TOKEN ...)); the key itself does not belong in a configuration"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(
    r"^sk-|^AIza|^Bearer |(?<![a-zA-Z0-9])(?=\d*[a-zA-Z])(?=[a-zA-Z]*\d)[a-zA-Z0-9]{16}"
)
"""Texts that begin like keys, or hold what mixes letters and digits like one."""
MOST_SAMPLES = 32
"""Samples of a verification."""


class Model(BaseModel):
    """A model that may answer.

    `kind` is "openai" (any OpenAI-compatible endpoint), "llama_cpp" (a GGUF file in this
    process), "learned" (a classifier that learns from the reference's answers) or "python" (a
    callable over a list of texts: the cells; in calls whose answers have a type, which ask their
    question in the call alone, the prompts, unless `parameters` say `reads = "cell"`). Keys are
    given by the name of an environment variable or of a secret of DuckDB only. `allow_http` lets
    prompts and key go unencrypted to another machine.

    With `mode = "batch"` the bulk of a statement, the calls for which no further decision waits,
    goes through the endpoint's batch API (`batch_at_least` calls or more), at the price less
    `batch_discount`, within `batch_window`. A statement waits for it, at most `batch_wait_s`.

    `verification` has the model judge its own answers: "probability" by one call, a number by
    that many samples. `hints` names models whose answers go into its prompt, as sentences
    (`pruning = "soft"`) or by leaving out labels they give less than `prune_below` ("hard").
    With `uses_steps` the answers to a task's steps go into it. `prompt` then is its own template.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True
    )

    name: str = Field(min_length=1)
    kind: Literal["openai", "llama_cpp", "learned", "python"] = "openai"
    reference: bool = False
    base_url: str = OPENAI_URL
    api_key_env: str | None = None
    api_key_secret: str | None = Field(default=None, min_length=1)
    allow_http: bool = False
    model: str | None = None
    logprobs: bool = False
    input_usd_per_mtok: float | None = Field(default=None, ge=0)
    output_usd_per_mtok: float | None = Field(default=None, ge=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)
    mode: Literal["live", "batch"] = "live"
    batch_at_least: int = Field(default=500, ge=1)
    batch_discount: float = Field(default=0.5, ge=0, lt=1)
    batch_window: str = Field(default="24h", min_length=1)
    batch_wait_s: float | None = Field(default=None, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    path: str | None = None
    function: str | Callable[[list[str]], Any] | None = None
    version: str = ""
    verification: Literal["probability"] | int | None = None
    hints: tuple[str, ...] = ()
    pruning: Literal["soft", "hard"] = "soft"
    prune_below: float = Field(default=0.05, gt=0, lt=1)
    uses_steps: bool = False
    prompt: str | None = None

    @field_validator("verification", mode="before")
    @classmethod
    def _is_one_call_or_samples(cls, value: object) -> object:
        """One message instead of one for each of the types it may have."""
        if value in (None, "probability"):
            return value
        if type(value) is int and 1 <= value <= MOST_SAMPLES:
            return value
        raise ValueError(
            f'verification must be "probability" or a number of samples from 1 to {MOST_SAMPLES}'
        )

    @field_validator("api_key_env")
    @classmethod
    def _is_name_of_variable(cls, value: str | None) -> str | None:
        """A name; what may be a key is refused without being repeated."""
        if value is not None and (not _VARIABLE.fullmatch(value) or like_a_key(value)):
            raise ValueError(NAME_OF_KEY)
        return value

    @field_validator("api_key_secret")
    @classmethod
    def _is_name_of_secret(cls, value: str | None) -> str | None:
        """A name; what may be a key is refused without being repeated."""
        if value is not None and like_a_key(value):
            raise ValueError(NAME_OF_SECRET)
        return value


class StepSettings(BaseModel):
    """An entry of `steps` in a `[tasks.NAME]` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str
    prompt: str
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"


class TaskSettings(BaseModel):
    """A `[tasks.NAME]` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    labels: tuple[str, ...] = ()
    equal: Equality = "auto"
    steps: tuple[StepSettings, ...] = ()


def default_store() -> str:
    """Where paid answers are kept: the user's data folder, not a cache that people delete."""
    return str(Path(platformdirs.user_data_dir("smartsql", appauthor=False)) / "answers.sqlite")


class Settings(BaseSettings):
    """All settings of a session. Arguments win over the environment, the environment over the file.

    `budget_usd` caps a statement, `session_budget_usd` what one engine spends while it is open,
    `daily_budget_usd` a day (UTC) over all processes that share the store. The command line asks
    before a statement that is expected to cost more than `confirm_above_usd`. Where
    `allowed_hosts` names hosts, models at others are refused. The ledger keeps digests of prompts,
    with `store_prompts` also the prompts that are sent. With `revalidate` the reference is asked
    again about a sample of its earlier answers, whether or not the model is known to have changed.

    Raises:
        ConfigError: through `load`, for every value that cannot be used.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    store: str = Field(default_factory=default_store)
    budget_usd: float | None = Field(default=None, ge=0)
    session_budget_usd: float | None = Field(default=None, ge=0)
    daily_budget_usd: float | None = Field(default=None, ge=0)
    confirm_above_usd: float | None = Field(default=None, ge=0)
    on_budget: Literal["error", "null"] = "error"
    on_error: Literal["error", "null"] = "error"
    max_in_flight: int = Field(default=256, ge=1)
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED)
    default_task: str | None = None
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    store_prompts: bool = False
    self_agreement: int = Field(default=0, ge=0)
    revalidate: bool = False
    models: tuple[Model, ...] = ()
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _are_hosts(cls, value: object) -> object:
        """A list; in the environment also names with commas between them."""
        if isinstance(value, str):
            text = value.strip()
            value = json.loads(text) if text.startswith("[") else [h for h in text.split(",") if h]
        if not isinstance(value, (list, tuple)) or not all(isinstance(h, str) for h in value):
            raise ValueError('allowed_hosts is a list of hosts, such as ["api.openai.com"]')
        return checked_hosts(value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments and the environment: `load` merges the file below both."""
        return init_settings, env_settings

    @property
    def reference(self) -> Model:
        """The model whose answers define the right ones."""
        return next(model for model in self.models if model.reference)

    def task(self, name: str | None) -> Task:
        """The task of that name, the default task, or prompts sent as they stand.

        Raises:
            ConfigError: no task of that name.
        """
        name = name or self.default_task
        if name is None:
            return Task()
        if name not in self.tasks:
            raise ConfigError(
                f"no task {name!r} is configured. "
                + did_you_mean(name, list(self.tasks))
                + f"Add a [tasks.{name}] section with a prompt to {FILE_NAME}."
            )
        section = self.tasks[name]
        steps = tuple(Step(s.name, s.model, s.prompt, s.labels, s.equal) for s in section.steps)
        return Task(name, section.prompt, section.labels, section.equal, steps)


def like_a_key(name: str) -> bool:
    """Whether a name looks like a key, which must be repeated nowhere."""
    return _KEY.search(name) is not None


def did_you_mean(name: str, known: list[str]) -> str:
    """A sentence that names the nearest known name; empty if none is known."""
    return f"Did you mean {nearest(name, known)!r}? " if known else ""


def nearest(name: str, known: list[str]) -> str:
    """The known name that is most like `name`; the same beginning counts for more."""

    def likeness(other: str) -> float:
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        begins_alike = len(list(pairs)) / max(len(name), 1)
        return difflib.SequenceMatcher(None, name, other).ratio() + begins_alike

    return max(known, key=likeness)
