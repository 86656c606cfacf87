"""Calls that were perhaps in flight when their process ended: possible money, never certain."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from smartsql.asking.budget import Gate
from smartsql.asking.sending import Handed
from smartsql.gateway import Attempt, Request
from smartsql.ledger import Ledger, owners, sent
from smartsql.ledger.claims import LEASE_S
from smartsql.ledger.owners import is_alive, new_owner
from smartsql.ledger.spending import utc_day
from smartsql.population import digest
from smartsql.reports.lost import told_of

KEYS = [digest(f"prompt {i}") for i in range(6)]
OK = Attempt(0, True, "ok", "yes", 0.9, 10, 2, 0.5, 0.1, "served")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "answers [1].sqlite")


def gone() -> str:
    """The name of an owner whose process has ended."""
    script = "from smartsql.ledger.owners import new_owner; print(new_owner())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def lost_rows(ledger: Ledger) -> list[tuple[object, ...]]:
    rows = [row for group in ledger.attempts() for row in group]
    return [(row[1], row[3], row[7]) for row in rows if row[4] == "lost"]


def held(ledger: Ledger, owner: str, run: int = 7) -> int:
    """An owner has claimed all keys, sent the first four, and two of these are recorded."""
    identity = ledger.identity("m", "i")
    assert ledger.claim(identity, KEYS, owner) == set()
    notes = ledger.notes(owner)
    assert notes is not None
    section = ledger.section(notes, identity, run, KEYS)
    section.mark(0, [0.25, 0.5])
    section.mark(2, [0.0, 0.125])
    failed = Attempt(0, True, "timeout", cost_usd=0.5)
    again = Attempt(0, False, "server_error")
    ledger.record(run, identity, [(KEYS[0], OK), (KEYS[1], failed), (KEYS[3], again)])
    return identity


def test_what_a_dead_process_sent_and_did_not_record_is_an_attempt_and_free_to_ask(
    ledger: Ledger,
) -> None:
    identity = held(ledger, gone())
    ledger.catch_up()
    # sent were four: of one the answer is kept, one failed for good; of the others nobody knows
    assert lost_rows(ledger) == [(7, KEYS[2].hex(), 0.0), (7, KEYS[3].hex(), 0.125)]
    assert ledger.claim(identity, KEYS, new_owner()) == set()
    assert not sent.files(ledger.path)
    told = ledger.take_lost()
    assert (told.calls, told.usd) == (2, 0.125)
    assert ledger.take_lost().calls == 0
    (note,) = told_of(told)
    assert note.startswith("2 calls of statements that ended before the answer came may have")
    assert "at most $0.12 (status 'lost' in smart_ledger())" in note


def test_what_was_lost_is_not_among_the_money_that_was_spent_for_certain(ledger: Ledger) -> None:
    held(ledger, gone())
    ledger.catch_up()
    ((model, attempts, *_, usd, _),) = ledger.totals()
    assert (model, attempts, usd) == ("m", 5, 1.0)


def test_calls_are_told_as_lost_once_however_often_one_looks(
    ledger: Ledger, tmp_path: Path
) -> None:
    held(ledger, gone())
    (path,) = sent.files(ledger.path).values()
    notes = Path(path).read_bytes()
    ledger.reap()
    Path(path).write_bytes(notes)  # as after a kill between the write and the end of the notes
    Ledger(ledger.path).reap()
    assert len(lost_rows(ledger)) == 2
    assert not Path(path).exists()


def test_notes_that_were_cut_off_tell_what_they_can(ledger: Ledger) -> None:
    owner = gone()
    held(ledger, owner)
    (path,) = sent.files(ledger.path).values()
    with Path(path).open("r+b") as file:
        file.write(b"smartsql calls sent 1\n")
        file.truncate(300)
    ledger.reap()
    assert lost_rows(ledger) == []
    assert ledger.claim(ledger.identity("m", "i"), KEYS, new_owner()) == set()


def test_a_living_process_loses_nothing_even_when_it_was_too_slow_for_its_lease(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = new_owner(), new_owner()
    identity = held(ledger, mine)
    ledger.reap()
    assert ledger.claim(identity, KEYS, other) == set(KEYS)
    later = time.time() + 2 * LEASE_S
    monkeypatch.setattr("smartsql.ledger.claims.time.time", lambda: later)
    ledger.reap()
    assert ledger.claim(identity, KEYS, other) == set()
    assert lost_rows(ledger) == []
    assert list(sent.files(ledger.path)) == [mine]


def test_a_run_that_comes_to_its_end_has_lost_nothing(ledger: Ledger) -> None:
    """As when it was taken for dead, on another machine, and was only asleep."""
    run = ledger.begin_run(b"statement")
    held(ledger, gone(), run)
    ledger.reap()
    assert len(lost_rows(ledger)) == 2
    ledger.end_run(run, "{}")
    assert lost_rows(ledger) == []


def test_calls_of_a_statement_that_was_abandoned_in_flight_are_lost(ledger: Ledger) -> None:
    owner = new_owner()
    identity = ledger.identity("m", "i")
    notes = ledger.notes(owner)
    assert notes is not None
    ledger.claim(identity, KEYS, owner)
    ledger.section(notes, identity, 7, KEYS).mark(0, [0.25, 0.5])
    ledger.record(7, identity, [(KEYS[0], OK)])
    ledger.release(owner, notes, settled=False)
    assert lost_rows(ledger) == [(7, KEYS[1].hex(), 0.5)]
    assert not sent.files(ledger.path)


def test_the_money_that_a_dead_process_had_set_aside_is_free_but_for_what_was_in_flight(
    ledger: Ledger,
) -> None:
    day, dead = utc_day(), gone()
    assert ledger.set_aside(day, dead, 6.0, 10.0) is None
    held(ledger, dead)  # records 1.0, leaves 0.125 in doubt
    assert ledger.set_aside(day, "me", 9.0, 10.0) is not None
    ledger.catch_up()
    assert ledger.set_aside(day, "me", 8.9, 10.0) == (pytest.approx(1.125), 0.0)
    assert ledger.set_aside(day, "me", 8.8, 10.0) is None


def test_after_a_restart_of_the_machine_money_set_aside_stays_taken(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last notes may have been lost with the power: what they may cost stays taken."""
    day, dead = utc_day(), gone()
    assert ledger.set_aside(day, dead, 6.0, 10.0) is None
    held(ledger, dead)
    monkeypatch.setattr(owners, "_boot", lambda: "another!")
    ledger.catch_up()
    assert len(lost_rows(ledger)) == 2
    assert ledger.set_aside(day, "me", 4.0, 10.0) is not None


def test_a_later_process_with_the_number_of_a_dead_one_is_not_taken_for_it() -> None:
    """As in containers, where every process has the number of the one before it."""
    me = new_owner()
    assert is_alive(me)
    host, pid, mark = me.rsplit(":", 2)
    boot, ticks, number = mark.split("-")
    assert int(pid) == os.getpid()
    assert not is_alive(f"{host}:{pid}:{boot}-{int(ticks) - 1}-{number}")
    assert is_alive(f"{host}:{pid}:{number}")  # of a version that did not tell


def requests(n: int) -> list[Request]:
    return [Request(i, str(i), str(i)) for i in range(n)]


def handed(ledger: Ledger, cancelled: Event, gate: Gate) -> Handed:
    notes = ledger.notes(gone())
    assert notes is not None
    section = ledger.section(notes, 1, 1, KEYS)
    errors: list[OSError] = []
    return Handed(requests(6), section, lambda _: 0.25, cancelled, gate, errors.append)


def noted(ledger: Ledger) -> list[bytes]:
    (path,) = sent.files(ledger.path).values()
    return [key for section in sent.read(path) for key, _ in section.calls]


def test_requests_are_noted_when_they_are_taken_one_by_one_or_in_batches(ledger: Ledger) -> None:
    taken = handed(ledger, Event(), Gate(()))
    assert noted(ledger) == []
    one_by_one = iter(taken)
    assert [next(one_by_one).index, next(one_by_one).index] == [0, 1]
    assert noted(ledger) == KEYS[:2]
    assert [request.index for request in taken[3:5]] == [3, 4]
    assert noted(ledger) == [*KEYS[:2], *KEYS[3:5]]
    assert taken[-1].index == 5
    assert noted(ledger) == [*KEYS[:2], *KEYS[3:]]
    assert len(taken) == 6
    with pytest.raises(ValueError, match="in steps of 2"):
        taken[::2]


@pytest.mark.parametrize("how", ["cancelled", "halted"])
def test_what_is_taken_to_be_given_up_is_not_noted(ledger: Ledger, how: str) -> None:
    cancelled, gate = Event(), Gate(())
    taken = iter(handed(ledger, cancelled, gate))
    next(taken)
    if how == "cancelled":
        cancelled.set()
    else:
        gate.halt()
    assert len(list(taken)) == 5
    assert noted(ledger) == KEYS[:1]
