"""What fits together in a configuration, beyond the types of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from smartsql.config.settings import Model, Settings, did_you_mean
from smartsql.errors import ConfigError
from smartsql.gateway.urls import checked_base_url
from smartsql.tasks import Task
from smartsql.templates import PLACEHOLDERS, placeholders, step_name, verifier_name

LANGUAGE_MODELS = ("openai", "llama_cpp")
"""Kinds that read a prompt."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(
    r"api[_-]?key|authori[sz]ation|password|secret|bearer|credential|(access|auth)[_-]?token",
    re.IGNORECASE,
)
"""Names of what must not be kept."""


def check(settings: Settings) -> None:
    """Refuse what cannot work, before anything is asked.

    Raises:
        ConfigError: what is wrong, and what to write instead.
    """
    names = [model.name for model in settings.models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"the model name {twice[0]!r} is configured twice; names must differ.")
    verifiers = {verifier_name(m.name): m.name for m in settings.models if m.verification}
    for name in names:
        if name in verifiers:
            raise ConfigError(
                f"the model {name!r} has the name under which {verifiers[name]!r} is verified; "
                f"rename it."
            )
    references = [model.name for model in settings.models if model.reference]
    if len(references) != 1:
        seen = "none has" if not references else f"{', '.join(references)} have"
        raise ConfigError(
            f"exactly one of the models must have reference = true, but {seen} "
            f"(models: {', '.join(names)}). Its answers define the right ones."
        )
    for model in settings.models:
        _check_model(model)
        _check_batch(model)
        if model.kind == "openai":
            _check_endpoint(model, settings)
        _check_distils(model, settings)
    for name in settings.tasks:
        settings.task(name)
        _check_steps(name, settings)
    settings.task(None)
    for model in settings.models:
        _check_evidence(model, settings)


def _check_model(model: Model) -> None:
    needed = {"llama_cpp": "path", "python": "function"}.get(model.kind)
    if needed and getattr(model, needed) is None:
        raise ConfigError(f"model {model.name!r} of kind {model.kind!r} needs the key {needed!r}.")
    if model.kind == "python":
        _check_reads(model)
    if model.kind == "learned" and model.reference:
        raise ConfigError(
            f"model {model.name!r} learns from the reference and cannot be the reference itself."
        )
    if (model.input_usd_per_mtok is None) != (model.output_usd_per_mtok is None):
        missing = (
            "input_usd_per_mtok" if model.input_usd_per_mtok is None else "output_usd_per_mtok"
        )
        raise ConfigError(f"model {model.name!r} has one price only; set {missing} too.")


def _check_batch(model: Model) -> None:
    """Batches are a matter of endpoints, and of those models that are told to use them."""
    given = sorted(name for name in model.model_fields_set if name.startswith("batch_"))
    if model.mode == "batch" and model.kind != "openai":
        raise ConfigError(
            f'model {model.name!r} of kind {model.kind!r} has mode = "batch", which is for kind '
            f'"openai": drop it.'
        )
    if given and model.mode != "batch":
        raise ConfigError(
            f'model {model.name!r} has {given[0]} but no mode = "batch"; set it, or drop '
            f"{given[0]}."
        )


def _check_endpoint(model: Model, settings: Settings) -> None:
    """Where prompts and key of a model go, and that the key goes nowhere else."""
    checked_base_url(
        model.base_url,
        model.name,
        allow_http=model.allow_http,
        allowed_hosts=settings.allowed_hosts,
    )
    if model.api_key_env is not None and model.api_key_secret is not None:
        raise ConfigError(
            f"model {model.name!r} has both api_key_env and api_key_secret; remove one of them."
        )
    found = _secret_in(model.parameters)
    if found is not None:
        # parameters go into requests, reports and the ledger as they are
        raise ConfigError(
            f"the parameter {found!r} of model {model.name!r} may hold a key, which would be kept "
            f"with the answers. Give the key by the name of a variable in api_key_env."
        )


def _secret_in(parameters: Mapping[str, Any]) -> str | None:
    """The first parameter that is named like a key or has a value like one."""
    for name, value in parameters.items():
        if _SECRET.search(name):
            return name
        values = value if isinstance(value, (list, tuple)) else [value]
        for inner in values:
            if isinstance(inner, Mapping) and (found := _secret_in(inner)) is not None:
                return f"{name}.{found}"
            if isinstance(inner, str) and inner.startswith(("sk-", "Bearer ")):
                return name
    return None


def _check_reads(model: Model) -> None:
    """A function over texts has one parameter: which texts."""
    for key, value in model.parameters.items():
        if key != "reads" or value not in ("cell", "prompt"):
            raise ConfigError(
                f"model {model.name!r} has the parameter {key} = {value!r}; the only one of kind "
                f'"python" is reads = "cell" or reads = "prompt".'
            )


def _check_distils(model: Model, settings: Settings) -> None:
    """A learned model distils a candidate that does not learn itself."""
    distils = model.parameters.get("distils") if model.kind == "learned" else None
    others = {m.name: m for m in settings.models if not m.reference and m.kind != "learned"}
    if isinstance(distils, str) and distils not in others:
        raise ConfigError(
            f"model {model.name!r} has distils = {distils!r}, which is no candidate with answers "
            f"of its own. {did_you_mean(distils, list(others))}".strip()
        )


def _check_evidence(model: Model, settings: Settings) -> None:
    """Verification, hints and steps of one model."""
    for key in ("pruning", "prune_below"):
        if key in model.model_fields_set and not model.hints:
            raise ConfigError(
                f"model {model.name!r} has {key} without hints; set hints, or drop it."
            )
    if "prune_below" in model.model_fields_set and model.pruning == "soft":
        raise ConfigError(
            f'model {model.name!r} has prune_below with soft pruning; set pruning = "hard".'
        )
    builds = bool(model.hints) or model.uses_steps
    if not (builds or model.verification or model.prompt is not None):
        return
    if model.reference:
        _refuse_reference(model)
    if model.kind not in LANGUAGE_MODELS:
        raise ConfigError(
            f"model {model.name!r} of kind {model.kind!r} reads no prompt; verification, hints, "
            f"uses_steps and prompt are for {' and '.join(LANGUAGE_MODELS)} models."
        )
    if model.kind == "llama_cpp" and isinstance(model.verification, int):
        raise ConfigError(
            f"model {model.name!r} has verification = {model.verification}, but a llama_cpp model "
            f'knows the probability itself; set verification = "probability".'
        )
    if model.hints and model.uses_steps:
        raise ConfigError(
            f"model {model.name!r} has both hints and uses_steps; configure two models instead."
        )
    if model.hints:
        _check_hints(model, settings)
    if model.uses_steps and not any(task.steps for task in settings.tasks.values()):
        raise ConfigError(
            f"model {model.name!r} has uses_steps = true, but no task has steps. Add steps = "
            f'[{{ name = "topic", model = "...", prompt = "... {{input}}" }}] to a task.'
        )
    if model.prompt is not None:
        _check_prompt(model, settings)


def _refuse_reference(model: Model) -> None:
    if model.verification:
        raise ConfigError(
            f"model {model.name!r} is the reference and has verification; its answers are right by "
            f"definition. Set verification on the cheaper models."
        )
    raise ConfigError(
        f"model {model.name!r} is the reference and has "
        f"{'hints' if model.hints else 'uses_steps' if model.uses_steps else 'a prompt'} of its "
        f"own. With another prompt it is another function than the reference that the promise "
        f"is about. Leave the reference as it is, and add a second [[models]] entry with the "
        f"same endpoint and this key: it is audited like any candidate."
    )


def _check_hints(model: Model, settings: Settings) -> None:
    known = {other.name: other for other in settings.models}
    for name in model.hints:
        if name not in known:
            raise ConfigError(
                f"model {model.name!r} has the hint {name!r}, which is no model. "
                + did_you_mean(name, list(known))
            )
        hint = known[name]
        is_plain = not (hint.reference or hint.hints or hint.uses_steps)
        if not is_plain or hint.kind == "learned":
            raise ConfigError(
                f"model {model.name!r} cannot take hints from {name!r}: hints come from models "
                f"that are asked the task's own prompt, neither the reference nor a learned one."
            )
        if model.pruning == "hard" and not (hint.kind == "llama_cpp" or hint.logprobs):
            raise ConfigError(
                f'model {model.name!r} has pruning = "hard", but {name!r} gives no probabilities '
                f"of labels. Set logprobs = true on it (kind openai), or use a llama_cpp model."
            )
    if len(set(model.hints)) != len(model.hints):
        raise ConfigError(f"model {model.name!r} names a hint twice.")


def _check_prompt(model: Model, settings: Settings) -> None:
    """A template of its own shows the cell and what it is there for."""
    if not (model.hints or model.uses_steps):
        raise ConfigError(
            f"model {model.name!r} has a prompt of its own but neither hints nor uses_steps; "
            f"prompts belong to tasks: write it in a [tasks.NAME] section."
        )
    steps = {step.name for task in settings.tasks.values() for step in task.steps}
    used = placeholders(model.prompt or "", (*PLACEHOLDERS, *steps))
    wanted = {"hints", "labels"} if model.hints else {"steps", *steps}
    if model.pruning == "hard" and model.hints:
        wanted = {"labels"}
    for needed in ({"input", "prompt"}, wanted):
        if not used & needed:
            names = " or ".join(f"{{{name}}}" for name in sorted(needed))
            raise ConfigError(f"the prompt of model {model.name!r} has no {names}; put it in.")


def _check_steps(task: str, settings: Settings) -> None:
    """The steps of one task, and the names under which they are asked."""
    models = {model.name: model for model in settings.models}
    taken = set(models) | {verifier_name(m.name) for m in settings.models if m.verification}
    seen: list[str] = []
    for step in settings.tasks[task].steps:
        where = f"step {step.name!r} of task {task!r}"
        if not _NAME.fullmatch(step.name) or step.name in (*PLACEHOLDERS, *seen):
            raise ConfigError(
                f"{where} needs another name: one word of letters, digits and underscores, used "
                f"once, and none of {', '.join(PLACEHOLDERS)}."
            )
        if step.model not in models:
            raise ConfigError(
                f"{where} has the model {step.model!r}, which is not configured. "
                + did_you_mean(step.model, list(models))
            )
        if models[step.model].kind == "learned":
            raise ConfigError(f"{where} cannot be answered by a learned model.")
        if "input" not in placeholders(step.prompt, ("input",)):
            raise ConfigError(f"the prompt of {where} has no {{input}}; put it in.")
        Task(step.name, step.prompt, step.labels, step.equal)  # its labels can be told apart
        if step_name(task, step.name) in taken:
            raise ConfigError(f"{where} has the name of a model; rename one of them.")
        seen.append(step.name)
