"""What one statement holds in the ledger while it asks: claims, and notes of what it has sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from smartsql.asking.budget import Gate
from smartsql.asking.sending import Handed, Job, worst_of
from smartsql.gateway import Backend, Request
from smartsql.ledger import LEASE_S, Ledger
from smartsql.ledger.owners import new_owner

SLICE = 32_768
"""Units that are looked up, claimed or handed over at once; bounds the memory of a statement."""


class Claiming:
    """The claims and notes of one run of a statement.

    Args:
        keys: under which the answers of a model's units are kept.

    Attributes:
        owner: the name under which it holds them.
    """

    def __init__(
        self, ledger: Ledger, run: int, keys: Callable[[str, Sequence[int]], list[bytes]]
    ) -> None:
        self._ledger = ledger
        self._run = run
        self._keys = keys
        self.owner = new_owner()
        self._notes = ledger.notes(self.owner)
        self._holds = False
        self._renew_at = 0.0

    def claim(self, job: Job) -> None:
        """Keep those units to do that nobody else is asking right now."""
        if not self._holds:
            self._ledger.reap()
            self._renew_at = time.monotonic() + LEASE_S / 3
        self._holds = True
        mine = np.ones(job.todo.size, dtype=np.bool_)
        for start in range(0, job.todo.size, SLICE):
            digests = self._keys(job.model, job.todo[start : start + SLICE].tolist())
            others = self._ledger.claim(job.identity, digests, self.owner)
            if others:
                mine[start : start + SLICE] = [d not in others for d in digests]
        job.elsewhere = job.todo[~mine]
        job.todo = job.todo[mine]

    def renew(self) -> None:
        """Extend the leases when it is time to."""
        if self._holds and time.monotonic() > self._renew_at:
            self._ledger.renew(self.owner)
            self._renew_at = time.monotonic() + LEASE_S / 3

    def release(self, *, settled: bool) -> None:
        """End claims and notes.

        Args:
            settled: what came of all calls is recorded; else those that are not become lost.
        """
        if self._holds:
            self._ledger.release(self.owner, self._notes, settled=settled)

    def handed(
        self,
        job: Job,
        backend: Backend,
        requests: Sequence[Request],
        units: Sequence[int],
        gate: Gate,
        failed: Callable[[OSError], None],
    ) -> Sequence[Request]:
        """Requests for units, which are noted as they are taken to be sent; see `Handed`."""
        if self._notes is None or not backend.claims:
            return requests
        keys = self._keys(job.model, units)
        section = self._ledger.section(self._notes, job.identity, self._run, keys)
        return Handed(requests, section, worst_of(backend), job.cancelled, gate, failed)
