"""Settings from `smartsql.toml`, environment variables and arguments, checked as one."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError
from pydantic_settings import SettingsError

from smartsql.config.checks import check
from smartsql.config.settings import (
    ENV_PREFIX,
    FILE_NAME,
    NAME_OF_KEY,
    NAME_OF_SECRET,
    Model,
    Settings,
    StepSettings,
    TaskSettings,
    did_you_mean,
    like_a_key,
    nearest,
)
from smartsql.errors import ConfigError

FREE_VARIABLES = ("SMARTSQL_CONFIG", "SMARTSQL_TEST_")
"""Variables (by how they begin) that are no settings."""
BUILT_IN_LADDER = ("gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna")

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
    settings = _made(config, arguments)
    if isinstance(settings, str):
        # raised here, where no variable holds what may be a key
        raise ConfigError(settings)
    _check_environment(settings)
    if not settings.models:
        settings = settings.model_copy(update={"models": _built_in_ladder()})
    check(settings)
    return settings


def _made(config: Config | None, arguments: dict[str, Any]) -> Settings | str:
    """The settings of all sources together, or what is wrong with them."""
    if isinstance(config, Settings):
        path, values = None, {name: getattr(config, name) for name in config.model_fields_set}
    else:
        path = find_file(config)
        values = _read_toml(path) if path else {}
    given = {key: value for key, value in arguments.items() if value is not None}
    below = _below_environment(values)
    try:
        return Settings(**{**below, **given})
    except SettingsError as error:
        return _not_json(error)
    except ValidationError as error:
        in_file = f" in {str(path)!r}" if path else ""
        sources = {**_environment(), **dict.fromkeys(below, in_file), **dict.fromkeys(given, "")}
        return _explain(error, sources)


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
            near = ENV_PREFIX + nearest(key, list(Settings.model_fields)).upper()
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
        return _resolve_paths(values, path.parent)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = str(error)
    # raised here, as the error itself knows the whole text, which may hold a key
    raise ConfigError(f"cannot read the configuration {str(path)!r}: {problem}")


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
        if "api_key_env" in problem["loc"] or "api_key_secret" in problem["loc"]:
            about = NAME_OF_KEY if "api_key_env" in problem["loc"] else NAME_OF_SECRET
            lines.append(f"{place!r}{where}: {about}")
        elif problem["type"] == "missing":
            lines.append(f"{place!r}{where} is missing")
        elif problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            known = _known_keys(problem["loc"])
            lines.append(f"unknown key {place!r}{where}. {did_you_mean(key, known)}".strip())
        else:
            is_shown = not isinstance(value, (dict, list)) and not like_a_key(str(value))
            shown = repr(value) if is_shown else f"a {type(value).__name__}"
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
