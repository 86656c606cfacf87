"""Configuration: `smartsql.toml`, environment variables and arguments, checked as one."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from smartsql.errors import ConfigError
from smartsql.tasks import Equality, Step, Task

OPENAI_URL = "https://api.openai.com/v1"
FILE_NAME = "smartsql.toml"
ENV_PREFIX = "SMARTSQL_"
FREE_VARIABLES = ("SMARTSQL_CONFIG", "SMARTSQL_TEST_")
"""Variables (by how they begin) that are no settings."""
MOST_SEED = 2**63 - 1
"""The largest integer of the ledger."""
NAME_OF_KEY = (
    "api_key_env must be the NAME of an environment variable that holds the key, such as "
    "OPENAI_API_KEY; the key itself does not belong in a configuration"
)
MOST_SAMPLES = 32
"""Samples of a verification."""
BUILT_IN_LADDER = ("gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna")


class Model(BaseModel):
    """A model that may answer.

    `kind` is "openai" (any OpenAI-compatible endpoint), "llama_cpp" (a GGUF file in this
    process), "learned" (a classifier that learns from the reference's answers) or "python" (a
    callable over a list of texts). Keys are given by the name of an environment variable only.

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
    model: str | None = None
    logprobs: bool = False
    input_usd_per_mtok: float | None = Field(default=None, ge=0)
    output_usd_per_mtok: float | None = Field(default=None, ge=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=60.0, gt=0)
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
        if value is not None and not re.fullmatch(r"(?!sk-)[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError(NAME_OF_KEY)
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
    on_budget: Literal["error", "null"] = "error"
    on_error: Literal["error", "null"] = "error"
    max_in_flight: int = Field(default=256, ge=1)
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED)
    default_task: str | None = None
    self_agreement: int = Field(default=0, ge=0)
    models: tuple[Model, ...] = ()
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)

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


Config = str | os.PathLike[str] | Settings
"""A TOML file, or settings made in Python."""


def load(config: Config | None = None, **arguments: Any) -> Settings:
    """Read the settings.

    Args:
        config: a TOML file; without it `SMARTSQL_CONFIG`, `./smartsql.toml` and the user's
            configuration folder are tried in this order. Settings are taken as they are.
        **arguments: settings that win over file and environment; None means not given.

    Raises:
        ConfigError: no such file, unknown key, value out of range, no reference or two.
    """
    from smartsql.config_checks import check

    if isinstance(config, Settings):
        path, values = None, {name: getattr(config, name) for name in config.model_fields_set}
    else:
        path = find_file(config)
        values = _read_toml(path) if path else {}
    given = {key: value for key, value in arguments.items() if value is not None}
    below = _below_environment(values)
    try:
        settings = Settings(**{**below, **given})
    except SettingsError as error:
        raise ConfigError(_not_json(error)) from None
    except ValidationError as error:
        in_file = f" in {str(path)!r}" if path else ""
        sources = {**_environment(), **dict.fromkeys(below, in_file), **dict.fromkeys(given, "")}
        raise ConfigError(_explain(error, sources)) from None
    _check_environment(settings)
    if not settings.models:
        settings = settings.model_copy(update={"models": _built_in_ladder()})
    check(settings)
    return settings


def _below_environment(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the file that no environment variable overrides."""
    overridden = _environment()
    return {
        key: value
        for key, value in values.items()
        if key not in overridden or key in ("models", "tasks")
    }


def _environment() -> dict[str, str]:
    """Where settings of the environment come from: " in the environment variable X" by key."""
    return {
        name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower(): (
            f" in the environment variable {name}"
        )
        for name in sorted(os.environ)
        if name.upper().startswith(ENV_PREFIX) and not name.upper().startswith(FREE_VARIABLES)
    }


def _check_environment(settings: Settings) -> None:
    """A variable that looks like a setting is one, or holds the key of a model."""
    keys = {model.api_key_env for model in settings.models}
    for key, where in _environment().items():
        variable = where.split()[-1]
        if key not in Settings.model_fields and variable not in keys:
            near = ENV_PREFIX + _nearest(key, list(Settings.model_fields)).upper()
            raise ConfigError(
                f"the environment variable {variable} is no setting of smartsql. "
                f"Did you mean {near!r}? Unset it if it is not needed."
            )


def _not_json(error: SettingsError) -> str:
    """What is wrong with a variable whose value must be JSON; the value may hold a secret."""
    field = re.search(r'field "(\w+)"', str(error))
    name = ENV_PREFIX + field[1].upper() if field else f"a variable {ENV_PREFIX}..."
    return f"the environment variable {name} does not hold JSON: {error.__cause__ or error}"


def find_file(config: str | os.PathLike[str] | None) -> Path | None:
    """The configuration file to read, None if there is none."""
    named = config or os.environ.get("SMARTSQL_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(f"the configuration file {str(path)!r} does not exist.")
        return path
    folder = Path(platformdirs.user_config_dir("smartsql", appauthor=False))
    return next((p for p in (Path(FILE_NAME), folder / FILE_NAME) if p.is_file()), None)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {str(path)!r}: {error}") from error
    return _resolve_paths(values, path.parent)


def _resolve_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative files are meant relative to the configuration file."""
    if isinstance(values.get("store"), str):
        values["store"] = _resolved(values["store"], folder)
    models = values.get("models")
    for model in models if isinstance(models, list) else ():
        if isinstance(model, dict) and isinstance(model.get("path"), str):
            model["path"] = _resolved(model["path"], folder)
    return values


def _resolved(text: str, folder: Path) -> str:
    if text == ":memory:" or text.startswith("package:"):
        return text
    return str(folder / Path(text).expanduser())


def _built_in_ladder() -> tuple[Model, ...]:
    """Current OpenAI models for users with a key and no configuration."""
    if not os.environ.get("OPENAI_API_KEY"):
        raise ConfigError(
            f"no models are configured. Write a {FILE_NAME} with at least one [[models]] entry "
            f"that has reference = true, or set OPENAI_API_KEY to use the built-in ladder of "
            f"OpenAI models; `smartsql demo` shows the whole on this machine without a key."
        )
    return tuple(
        Model(name=name, api_key_env="OPENAI_API_KEY", reference=name == BUILT_IN_LADDER[0])
        for name in BUILT_IN_LADDER
    )


def _explain(error: ValidationError, sources: dict[str, str]) -> str:
    """All problems, each with where the value came from; nothing that may hold a key is shown."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in problem["loc"])
        where = sources.get(str(problem["loc"][0]), "") if problem["loc"] else ""
        value = problem["input"]
        if "api_key_env" in problem["loc"]:
            lines.append(f"{place!r}{where}: {NAME_OF_KEY}")
        elif problem["type"] == "missing":
            lines.append(f"{place!r}{where} is missing")
        elif problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            known = _known_keys(problem["loc"])
            lines.append(f"unknown key {place!r}{where}. {did_you_mean(key, known)}".strip())
        else:
            shown = f"a {type(value).__name__}" if isinstance(value, (dict, list)) else repr(value)
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{place!r}{where} is {shown}: {message}")
    return "; ".join(lines)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if location[0] == "models" and len(location) > 1:
        return list(Model.model_fields)
    if location[0] == "tasks" and "steps" in location[2:-1]:
        return list(StepSettings.model_fields)
    if location[0] == "tasks" and len(location) > 1:
        return list(TaskSettings.model_fields)
    return list(Settings.model_fields)


def did_you_mean(name: str, known: list[str]) -> str:
    """A sentence that names the nearest known name; empty if none is known."""
    return f"Did you mean {_nearest(name, known)!r}? " if known else ""


def _nearest(name: str, known: list[str]) -> str:
    """The known name that is most like `name`; the same beginning counts for more."""

    def likeness(other: str) -> float:
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        begins_alike = len(list(pairs)) / max(len(name), 1)
        return difflib.SequenceMatcher(None, name, other).ratio() + begins_alike

    return max(known, key=likeness)
