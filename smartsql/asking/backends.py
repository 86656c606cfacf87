"""From the configuration to models that can be asked; heavy libraries load with their kind."""

from __future__ import annotations

import os

from smartsql.calls.verification import parameters_for
from smartsql.config import Model, Settings
from smartsql.errors import ConfigError
from smartsql.gateway import Backend
from smartsql.gateway.limits import Slots
from smartsql.gateway.urls import checked_base_url, is_loopback
from smartsql.templates import verifier_name


def build(settings: Settings) -> dict[str, Backend]:
    """The backends of all models, in the order of the configuration, then of their verifiers.

    Raises:
        ConfigError: a key variable that is not set, a function that cannot be imported, ...
        UnknownPriceError: nobody knows what a model costs.
        MissingExtraError: an optional package is not installed.
    """
    slots = Slots(settings.max_in_flight)
    found = {model.name: _backend(model, slots) for model in settings.models}
    for model in settings.models:
        if model.verification:
            found[verifier_name(model.name)] = _verifier(model, found[model.name])
    return found


def _verifier(model: Model, backend: Backend) -> Backend:
    """The model as it is asked to judge its answers; what it takes up is shared."""
    if model.kind != "openai":
        return backend
    from smartsql.gateway.openai_api import OpenAIBackend

    assert isinstance(backend, OpenAIBackend)
    assert model.verification is not None
    parameters = parameters_for(model.verification, model.parameters)
    by_probability = model.verification == "probability"
    return backend.variant(verifier_name(model.name), parameters, logprobs=by_probability)


def _backend(model: Model, slots: Slots) -> Backend:
    if model.kind == "openai":
        return _openai(model, slots)
    if model.kind == "llama_cpp":
        from smartsql.gateway.llama_cpp import LlamaCppBackend

        assert model.path is not None
        return LlamaCppBackend(model.name, model.path, model.parameters)
    if model.kind == "learned":
        from smartsql.gateway.learned import LearnedBackend

        return LearnedBackend(model.name, model.parameters)
    return _python(model)


def _openai(model: Model, slots: Slots) -> Backend:
    from smartsql.gateway.openai_api import OpenAIBackend
    from smartsql.gateway.prices import price_of

    checked_base_url(model.base_url, model.name)  # before its key and price are missed
    return OpenAIBackend(
        model.name,
        base_url=model.base_url,
        price=price_of(
            model.model or model.name,
            model.base_url,
            model.input_usd_per_mtok,
            model.output_usd_per_mtok,
        ),
        slots=slots,
        model=model.model,
        api_key=_key(model),
        parameters=model.parameters,
        logprobs=model.logprobs,
        requests_per_minute=model.requests_per_minute,
        tokens_per_minute=model.tokens_per_minute,
        timeout_s=model.timeout_s,
    )


def _key(model: Model) -> str | None:
    """The key itself, read at the last moment; it goes nowhere but into the client."""
    name = model.api_key_env
    if name is None:
        if is_loopback(model.base_url):
            return None
        raise ConfigError(
            f"model {model.name!r} at {model.base_url} has no api_key_env; set it to the name of "
            f"the environment variable that holds the key."
        )
    key = os.environ.get(name)
    if not key:
        raise ConfigError(
            f"the environment variable {name!r}, which holds the key of model {model.name!r}, is "
            f"not set."
        )
    return key


def _python(model: Model) -> Backend:
    from smartsql.gateway import Price
    from smartsql.gateway.local import PythonBackend, resolve_function
    from smartsql.gateway.worker import FREE

    function = model.function
    assert function is not None
    if isinstance(function, str):
        function = resolve_function(function)
    price = FREE
    if model.input_usd_per_mtok is not None and model.output_usd_per_mtok is not None:
        price = Price(model.input_usd_per_mtok, model.output_usd_per_mtok, "configuration")
    reads = model.parameters.get("reads")
    return PythonBackend(model.name, function, model.version, price, reads=reads)
