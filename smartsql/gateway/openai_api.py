"""Models behind the OpenAI chat completions API, at any address.

A run is a set of worker tasks on the process's event loop that pull requests from one iterator, so
a million requests cost no more memory than the requests themselves. Each try passes the rate
limits, the budget, the model's own places and the places of all models, in this order, and every
try that was sent leaves an `Attempt`, the failed ones too. The client library's own retries are
off: they would be tries that nobody accounts for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smartsql.errors import ParameterError
from smartsql.gateway import Allowance, Attempts, Form, Price, Request
from smartsql.gateway.congestion import Congestion
from smartsql.gateway.key import Key
from smartsql.gateway.limits import Slots
from smartsql.gateway.loop import shared_loop
from smartsql.gateway.openai_attempts import delivered, failed
from smartsql.gateway.openai_batch import BatchEndpoint, BatchTerms
from smartsql.gateway.openai_client import connect
from smartsql.gateway.openai_dialect import FORMAT, Dialect, longest_answer
from smartsql.gateway.openai_meter import Meter
from smartsql.gateway.openai_private import scrubbed, without_key
from smartsql.gateway.openai_run import WATCH_S, Run
from smartsql.gateway.openai_wire import (
    Failure,
    Reply,
    connection_failure,
    read_error,
    read_reply,
)
from smartsql.gateway.pace import Counter, Pace
from smartsql.gateway.retry import Health, RetryBudget, RetryPolicy, Tries, Verdict
from smartsql.gateway.urls import checked_base_url

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)


class OpenAIBackend:
    """One model behind an OpenAI-compatible endpoint; implements `Backend`.

    Args:
        name: the model's name in the configuration.
        base_url: address up to and including the version, such as https://api.openai.com/v1.
        price: what its tokens cost.
        slots: places for calls in flight, shared by all models of a configuration.
        model: id sent to the endpoint; default `name`.
        api_key: the key; None where the endpoint needs none. It appears in no repr, error or log.
        parameters: sent with every request as they are (temperature, max_completion_tokens, ...).
        system: a system message that goes before each prompt.
        logprobs: ask for log probabilities and derive confidences from them.
        requests_per_minute, tokens_per_minute: limits to keep to.
        timeout_s: longest time for one try, from sending to the end of the answer.
        retry: how patient to be.
        batch: when and how calls go through the batch API; None for never.

    Raises:
        ConfigError: an address that is not allowed, or a parameter that is set here already.
        ParameterError: a limit or timeout that is not positive.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        price: Price,
        slots: Slots,
        model: str | None = None,
        api_key: Key | str | None = None,
        allow_http: bool = False,
        parameters: Mapping[str, Any] | None = None,
        system: str | None = None,
        logprobs: bool = False,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 120.0,
        retry: RetryPolicy | None = None,
        batch: BatchTerms | None = None,
    ) -> None:
        if not timeout_s > 0:
            raise ParameterError(f"timeout_s of model {name!r} is {timeout_s!r}; set it above 0.")
        parameters = dict(parameters or {})
        self._name = name
        self._base_url = checked_base_url(base_url, name, allow_http=allow_http)
        self._allow_http = allow_http
        self._key = Key.of(api_key) if isinstance(api_key, str) else api_key
        self._timeout_s = timeout_s
        self._logprobs = logprobs
        self._identity = {
            "kind": "openai",
            "base_url": self._base_url,
            "model": model or name,
            "parameters": parameters,
            "system": system,
        }
        self._dialect = Dialect(name, model or name, system, parameters, logprobs=logprobs)
        self._meter = Meter(price, longest_answer(name, parameters), len((system or "").encode()))
        self._policy = retry or RetryPolicy()
        self._health = Health(name, self._policy)
        self._budget = RetryBudget(self._policy)
        self._pace = Pace(requests_per_minute, tokens_per_minute)
        self._slots, self._share = slots, slots.share()
        self._places = Slots(slots.limit)
        self._congestion = Congestion(self._places)
        self._client: AsyncOpenAI | None = None
        self._connecting = threading.Lock()
        self._runs: set[Run] = set()
        self.batch_terms = batch
        self.batches = BatchEndpoint(name, self._base_url, self._key, self._dialect, self._meter)

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._name!r}, base_url={self._base_url!r})"

    def variant(self, name: str, parameters: Mapping[str, Any], *, logprobs: bool) -> OpenAIBackend:
        """The same model, asked for something else.

        Limits, places and what is known of the endpoint's health are shared: for the endpoint
        they are one caller.
        """
        mine = self._identity
        other = OpenAIBackend(
            name,
            base_url=self._base_url,
            price=self.price,
            slots=self._slots,
            model=str(mine["model"]),
            api_key=self._key,
            allow_http=self._allow_http,
            parameters=parameters,
            system=mine["system"],  # type: ignore[arg-type]
            logprobs=logprobs,
            timeout_s=self._timeout_s,
            retry=self._policy,
        )
        other._pace, other._places, other._congestion = self._pace, self._places, self._congestion
        other._health, other._budget, other._runs = self._health, self._budget, self._runs
        other._share = self._share
        return other

    def count_with(self, counter: Callable[[str], Counter]) -> None:
        """Keep the limits a minute together with others; nothing where there are none.

        Args:
            counter: makes the counter of a lane, a name for endpoint and model.
        """
        if self._pace.is_limited:
            self._pace.count_with(counter(f"{self._base_url} {self._identity['model']}"))

    @property
    def name(self) -> str:
        """The model's name in the configuration."""
        return self._name

    @property
    def price(self) -> Price:
        """What tokens cost."""
        return self._meter.price

    @property
    def claims(self) -> bool:
        """Always: whoever asks the same at the same time waits for one answer."""
        return True

    def identity(self, labels: tuple[str, ...]) -> str:
        """Endpoint, model id, parameters and system message, as configured.

        What the endpoint turned out not to support does not change it, nor does `logprobs`: the
        answer is the same. Labels are part of the prompt already.
        """
        return json.dumps(self._identity, sort_keys=True, ensure_ascii=False)

    def expected_cost_usd(self, request: Request) -> float:
        """Estimate by the tokens per byte and per answer seen so far."""
        return self._meter.expected_cost_usd(request)

    def expected_tokens(self, request: Request) -> tuple[int, int]:
        """Tokens in and out of a call, estimated in the same way."""
        return self._meter.expected_tokens(request)

    def worst_cost_usd(self, request: Request) -> float:
        """What a call costs at most; this is what is reserved before each try.

        Without max_completion_tokens (or max_tokens) among the parameters the longest answer is
        assumed to have 1024 tokens; a longer one is settled at its true cost afterwards.
        """
        return self._meter.worst_cost_usd(request)

    def start(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: threading.Event,
        allowance: Allowance | None = None,
    ) -> None:
        """Begin to answer and return; every request ends in exactly one final attempt."""
        if requests:
            loop = shared_loop()
            loop.close_at_exit(self)
            loop.spawn(self._serve(requests, labels, out, cancelled, allowance))

    def close(self) -> None:
        """End what is under way and release the connections; it may be started again."""
        self.batches.close()
        if self._client is not None or self._runs:
            shared_loop().wait(self._close(), timeout_s=5.0)

    async def _close(self) -> None:
        for run in list(self._runs):
            await run.abandon()
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self._pace.close()

    async def _serve(
        self,
        requests: Sequence[Request],
        labels: tuple[str, ...],
        out: Attempts,
        cancelled: threading.Event,
        allowance: Allowance | None,
    ) -> None:
        purse, width = self._slots.purse(allowance), self._slots.limit
        run = Run(requests, labels, out, cancelled, purse, width)
        if not self._runs:
            self._health.renew()
        self._runs.add(run)
        try:
            # the import takes a second, for which no other run and no cancellation should wait
            connecting = asyncio.create_task(asyncio.to_thread(self._connect))
            while not (connecting.done() or cancelled.is_set()):
                await asyncio.wait({connecting}, timeout=WATCH_S)
            if connecting.done():
                connecting.result()
            await run.work(self._answer)
        except Exception as error:
            # the edge of the thread: the reader waits for every request
            log.exception("model %s: a run ended with an internal error", self._name)
            await run.abandon("malformed", f"internal error ({type(error).__name__})")
        finally:
            self._runs.discard(run)

    def _connect(self) -> None:
        with self._connecting:
            if self._client is not None:
                return
            self._client = connect(
                self._base_url,
                self._key,
                timeout_s=self._timeout_s,
                connections=self._slots.limit,
            )

    async def _answer(self, run: Run, request: Request) -> None:
        """Try until there is an answer or no sense in trying; the last attempt is final."""
        tries = Tries(self._policy, self._health, self._budget)
        self._budget.request()
        own = ""
        while True:
            outcome, seconds = await self._admitted(run, request)
            if isinstance(outcome, Verdict):
                return run.finish(request, outcome.status, own + outcome.error, outcome.retryable)
            if outcome is None:
                return run.finish(request, "budget", "the budget does not cover this call")
            if isinstance(outcome, Reply):
                judged = self._logprobs
                return run.emit(delivered(self._meter, request, outcome, seconds, judged=judged))
            pause_s: float | None = None
            if outcome.retryable:  # a request with other parameters need not wait
                asked_s = outcome.wait_s
                pause_s = 0.0 if outcome.unsupported else tries.pause_s(outcome.status, asked_s)
            error, own = outcome.error, f"{outcome.error}; "
            if pause_s is None and tries.count > 1:
                error += f" (given up after {tries.count} tries)"
            final = pause_s is None
            run.emit(failed(self._meter, request, outcome, seconds, error, final=final))
            if pause_s is None:
                return None
            if pause_s > 0.0:
                await run.rest(self._health.pause(pause_s), self._places.limit)

    async def _admitted(
        self, run: Run, request: Request
    ) -> tuple[Reply | Failure | Verdict | None, float]:
        """One try when it is its turn; None when the budget does not cover it.

        Whatever is waited for, those wait first who hold the least: nothing that other models
        need is held while this one's endpoint or its limits let nobody through.
        """
        async with self._places:
            await self._health.admit()
            if self._health.verdict is not None:
                return self._health.verdict, 0.0
            most = float(sum(self._meter.worst_tokens(request))) if self._pace.is_limited else 0.0
            permits, used = await self._pace.admit(most), None
            try:
                worst = self._meter.worst_cost_usd(request)
                if not await run.purse.reserve(worst):
                    return None, 0.0
                spent = 0.0
                try:
                    async with self._share:
                        # from here to the outcome it may be billed, even when it is cancelled
                        spent, used = worst, most
                        run.at_stake[request.index] = worst
                        began = time.monotonic()
                        outcome = await self._try(request, run.labels)
                        seconds = time.monotonic() - began
                    del run.at_stake[request.index]
                    spent = self._meter.cost_of(request, outcome)
                    used = float(self._meter.tokens_used(request, outcome))
                finally:
                    run.purse.settle(worst, spent)
            finally:
                self._pace.end(permits, used)
            # before the place is free: if this call was refused, the next one need not be
            self._learn(request, outcome, began)
        return outcome, seconds

    async def _try(self, request: Request, labels: Sequence[str]) -> Reply | Failure:
        """One HTTP request."""
        import httpx2
        import openai
        from aiohttp import ClientError

        assert self._client is not None
        sent, form = self._dialect.sent, self._dialect.form(request.form)
        outcome: Reply | Failure | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                # posting the body as it is avoids the typed method's conversions both ways
                response = await self._client.post(
                    "/chat/completions",
                    body=self._dialect.body(request.prompt, form),
                    cast_to=httpx2.Response,
                )
        except openai.APIStatusError as error:
            outcome = read_error(error.response.status_code, error.body, error.response.headers)
        except (openai.OpenAIError, ClientError, TimeoutError, ValueError) as error:
            outcome = connection_failure(error)
        if outcome is None:
            kind = response.headers.get("content-type", "")
            outcome = read_reply(response.content, kind, labels)
        if isinstance(outcome, Failure):
            if self._adapted(outcome, sent, form):
                outcome = dataclasses.replace(outcome, retryable=True)
            return scrubbed(outcome, self._key, request.prompt)
        return without_key(outcome, self._key)

    def _adapted(self, failure: Failure, sent: Mapping[str, Any], form: Form | None) -> bool:
        """Whether to send a refused request again, without what the endpoint does not take."""
        if failure.unsupported is None:
            return False
        if failure.unsupported != FORMAT:
            return self._dialect.adapt(failure.unsupported, sent)
        if form is not None:
            self._dialect.refuse_forms()
        return form is not None

    def _learn(self, request: Request, outcome: Reply | Failure, sent_at: float) -> None:
        if isinstance(outcome, Reply):
            self._health.succeeded()
            self._meter.learn(request, outcome)
        elif outcome.hopeless or (outcome.retryable and not outcome.unsupported):
            self._health.failed(outcome.status, outcome.error, hopeless=outcome.hopeless)
        refused = isinstance(outcome, Failure) and outcome.status == "rate_limited"
        self._congestion.record(refused=refused, sent_at=sent_at, now=time.monotonic())
