from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.gateway import Attempts
from smartsql.gateway.limits import Purse, Slots
from smartsql.gateway.retry import Health, RetryBudget, RetryPolicy, retry_after_s
from tests.gateway.asking import PRICE, Wallet, ask, backend_for, collect, requests_for
from tests.gateway.server import TestServer


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer() as running:
        yield running


@pytest.mark.parametrize("limit", [1, 7, 32])
def test_no_more_calls_are_in_flight_than_allowed_and_as_many_as_allowed(
    server: TestServer, limit: int
) -> None:
    server.latency_s = 0.02
    backend = backend_for(server.base_url, slots=Slots(limit))
    ask(backend, [f"p{i}" for i in range(6 * limit)])
    backend.close()
    assert server.most_in_flight == limit


def test_a_budget_ends_calls_before_they_are_sent_and_is_never_exceeded(
    server: TestServer,
) -> None:
    backend = backend_for(server.base_url)
    prompts = [f"prompt {i:03d}" for i in range(300)]
    worst = backend.worst_cost_usd(requests_for(prompts)[0])
    wallet = Wallet(20 * worst)
    attempts = ask(backend, prompts, allowance=wallet)
    backend.close()
    statuses = [attempts[i][-1].status for i in range(300)]
    assert set(statuses) == {"ok", "budget"}
    # a call costs far less than its worst case, so many more than 20 are made
    assert statuses.count("ok") == len(server.calls) > 60
    assert wallet.most_committed_usd <= wallet.budget_usd + 1e-12
    assert wallet.reserved_usd == pytest.approx(0.0, abs=1e-12)
    assert wallet.spent_usd == pytest.approx(PRICE.cost_usd(*server.billed_tokens("m")))
    assert wallet.budget_usd - wallet.spent_usd < worst
    refused = [a for tried in attempts.values() for a in tried if a.status == "budget"]
    assert all(a.final and a.cost_usd == 0 and a.seconds == 0 for a in refused)


def test_the_budget_is_asked_before_retries_too(server: TestServer) -> None:
    backend = backend_for(server.base_url)
    worst = backend.worst_cost_usd(requests_for(["p"])[0])
    server.script("billed_reset")
    wallet = Wallet(1.5 * worst)
    assert [a.status for a in ask(backend, ["p"], allowance=wallet)[0]] == ["connection", "budget"]
    assert wallet.spent_usd == pytest.approx(worst)
    assert len(server.calls) == 1
    backend.close()


def test_two_models_spend_from_one_allowance_without_starving(server: TestServer) -> None:
    slots = Slots(16)
    backends = [backend_for(server.base_url, name, slots=slots) for name in ("a", "b")]
    server.latency_s = 0.01
    prompts = [f"prompt {i:03d}" for i in range(150)]
    worst = backends[0].worst_cost_usd(requests_for(prompts)[0])
    wallet = Wallet(12 * worst)
    outs: list[Attempts] = [SimpleQueue(), SimpleQueue()]
    for backend, out in zip(backends, outs, strict=True):
        backend.start(requests_for(prompts), (), out, Event(), wallet)
    finals = [tried[-1].status for out in outs for tried in collect(out, 150).values()]
    assert finals.count("ok") == len(server.calls) > 30
    assert wallet.budget_usd - wallet.spent_usd < worst
    assert wallet.most_committed_usd <= wallet.budget_usd + 1e-12
    for backend in backends:
        backend.close()


def test_cancelled_calls_settle_at_their_worst_case(server: TestServer) -> None:
    backend = backend_for(server.base_url, slots=Slots(4))
    server.faults = lambda call: "hang"
    wallet, cancelled = Wallet(1.0), Event()
    out: Attempts = SimpleQueue()
    backend.start(requests_for([f"p{i}" for i in range(20)]), (), out, cancelled, wallet)
    while len(server.calls) < 4:
        time.sleep(0.005)
    cancelled.set()
    attempts = collect(out, 20)
    backend.close()
    owned_up = sum(a.cost_usd for tried in attempts.values() for a in tried)
    assert wallet.spent_usd == pytest.approx(owned_up) and owned_up > 0
    assert wallet.reserved_usd == pytest.approx(0.0, abs=1e-12)


def test_an_endpoint_with_fewer_places_is_not_flooded() -> None:
    with TestServer(slots=10, latency_s=0.02) as server:
        backend = backend_for(server.base_url, slots=Slots(64))
        attempts = ask(backend, [f"p{i}" for i in range(500)], timeout_s=30)
        backend.close()
        assert {tried[-1].status for tried in attempts.values()} == {"ok"}
        assert server.max_billed() == 1
        assert 0 < server.rejected < 70


def test_slots_are_given_in_order_and_survive_cancellation() -> None:
    async def scenario() -> list[int]:
        slots, order = Slots(2), list[int]()

        async def hold(i: int) -> None:
            async with slots:
                order.append(i)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(hold(i)) for i in range(8)]
        await asyncio.sleep(0.005)
        tasks[2].cancel()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.taken == 0
        slots.resize(1)
        await slots.take()
        waiting = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        slots.give()
        waiting.cancel()  # the place and the cancellation come together
        await asyncio.gather(waiting, return_exceptions=True)
        assert slots.taken == 0
        return order

    assert asyncio.run(scenario()) == [0, 1, 3, 4, 5, 6, 7]


def test_a_purse_waits_for_calls_in_flight_and_then_refuses_all_that_wait() -> None:
    async def scenario() -> tuple[list[bool], float]:
        wallet = Wallet(1.0)
        purse = Slots(1).purse(wallet)
        assert await purse.reserve(0.9)
        waiting = [asyncio.create_task(purse.reserve(0.4)) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        purse.settle(0.9, 0.5)
        await asyncio.sleep(0.01)
        assert [task.done() for task in waiting] == [True, False, False]
        purse.settle(0.4, 0.3)
        return [await task for task in waiting], wallet.spent_usd

    granted, spent = asyncio.run(scenario())
    assert granted == [True, False, False] and spent == pytest.approx(0.8)


def test_one_allowance_has_one_purse_and_none_needs_none() -> None:
    slots, wallet = Slots(1), Wallet(1.0)
    purse = slots.purse(wallet)
    assert slots.purse(wallet) is purse
    assert slots.purse(Wallet(1.0)) is not purse
    assert asyncio.run(Purse(None).reserve(1e9))


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after_s({"retry-after": "1.5"}) == 1.5
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    for bad in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert retry_after_s(bad) is None


def test_pauses_grow_to_a_limit_and_are_never_shorter_than_asked() -> None:
    policy = RetryPolicy(base_s=1.0, longest_s=8.0)
    for failures, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (40, 8.0)):
        pauses = [policy.pause_s(failures, None) for _ in range(200)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert all(30.0 <= policy.pause_s(1, 30.0) <= 33.0 for _ in range(50))


def test_the_retry_budget_is_filled_by_requests() -> None:
    budget = RetryBudget(RetryPolicy(spare_retries=2, retries_per_request=0.5))
    assert [budget.retry() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.request()
    assert [budget.retry() for _ in range(3)] == [True, True, False]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_endpoint_is_given_up_only_when_nothing_succeeds_for_long() -> None:
    clock = Clock()
    health = Health("m", RetryPolicy(suspect_after=3), clock)
    for _ in range(50):
        health.failed("server_error", "HTTP 500")
        clock.now += 1.0
    assert health.is_suspect and health.verdict is None
    health.succeeded()
    assert not health.is_suspect
    for _ in range(12):
        health.failed("connection", "refused")
        clock.now += 1.0
    assert health.verdict is not None
    assert (health.verdict.status, health.verdict.retryable) == ("connection", True)
    health.renew()  # soon afterwards: one more failure is enough
    assert health.verdict is None and health.is_suspect
    health.failed("connection", "refused")
    assert health.verdict is not None
    clock.now += 100.0
    health.renew()  # long afterwards: all is forgotten
    health.failed("connection", "refused")
    assert health.verdict is None and not health.is_suspect


def test_hopeless_failures_need_no_patience() -> None:
    health = Health("m", RetryPolicy(suspect_after=3), Clock())
    for _ in range(3):
        health.failed("rejected", "HTTP 401", hopeless=True)
    assert health.verdict is not None and not health.verdict.retryable
    assert "HTTP 401" in health.verdict.error
