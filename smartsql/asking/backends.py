"""From the configuration to models that can be asked; heavy libraries load with their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from smartsql.calls.verification import parameters_for
from smartsql.config import Model, Settings
from smartsql.config.keys import Keyring
from smartsql.gateway import Backend
from smartsql.gateway.limits import Slots
from smartsql.gateway.urls import checked_base_url
from smartsql.ledger import Ledger
from smartsql.ledger.pace import SharedCounter
from smartsql.templates import verifier_name

if TYPE_CHECKING:
    from smartsql.gateway.openai_api import OpenAIBackend
    from smartsql.gateway.openai_batch import BatchEndpoint


def build(settings: Settings, keys: Keyring | None = None) -> dict[str, Backend]:
    """The backends of all models, in the order of the configuration, then of their verifiers.

    Args:
        keys: where keys come from; the environment alone by default.

    Raises:
        ConfigError: a key variable that is not set, a function that cannot be imported, ...
        UnknownPriceError: nobody knows what a model costs.
        MissingExtraError: an optional package is not installed.
    """
    slots = Slots(settings.max_in_flight)
    keys = Keyring(settings.models) if keys is None else keys
    found = {model.name: _backend(model, slots, keys) for model in settings.models}
    for model in settings.models:
        if model.verification:
            found[verifier_name(model.name)] = _verifier(model, found[model.name])
    return found


def count_together(backends: Mapping[str, Backend], store: Ledger) -> None:
    """Have the limits a minute of models kept by all processes that share a ledger together."""
    if store.path == ":memory:":
        return
    for backend in backends.values():
        count_with = getattr(backend, "count_with", None)
        if count_with is not None:
            count_with(lambda lane: SharedCounter(store.path, lane))


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


def _backend(model: Model, slots: Slots, keys: Keyring) -> Backend:
    if model.kind == "openai":
        return _openai(model, slots, keys)
    if model.kind == "llama_cpp":
        from smartsql.gateway.llama_cpp import LlamaCppBackend

        assert model.path is not None
        return LlamaCppBackend(model.name, model.path, model.parameters)
    if model.kind == "learned":
        from smartsql.gateway.learned import LearnedBackend

        return LearnedBackend(model.name, model.parameters)
    return _python(model)


def _openai(model: Model, slots: Slots, keys: Keyring) -> OpenAIBackend:
    from smartsql.gateway.openai_api import OpenAIBackend
    from smartsql.gateway.openai_batch import BatchTerms
    from smartsql.gateway.prices import price_of

    # before its key and price are missed
    checked_base_url(model.base_url, model.name, allow_http=model.allow_http)
    key = keys.key(model)
    terms = None
    if model.mode == "batch":
        terms = BatchTerms(
            model.batch_at_least, model.batch_discount, model.batch_window, model.batch_wait_s
        )
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
        api_key=key,
        allow_http=model.allow_http,
        parameters=model.parameters,
        logprobs=model.logprobs,
        requests_per_minute=model.requests_per_minute,
        tokens_per_minute=model.tokens_per_minute,
        timeout_s=model.timeout_s,
        batch=terms,
    )


def batch_endpoint(model: Model, keys: Keyring) -> BatchEndpoint:
    """The batch API of a model's endpoint, without the model itself. Errors: as `build`."""
    return _openai(model, Slots(1), keys).batches


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
