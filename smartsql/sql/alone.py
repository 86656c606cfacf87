"""One thread at a time on a connection: another one is refused, not kept waiting."""

from __future__ import annotations

from threading import RLock

import duckdb


class Alone:
    """A block in which no other thread may enter; the thread inside may enter again.

    DuckDB refuses other threads itself while a statement runs, but of a statement that has only
    just begun it has them wait for the end.
    """

    def __init__(self) -> None:
        self._held = RLock()

    def __enter__(self) -> None:
        """Enter.

        Raises:
            duckdb.ResourceInUseException: another thread is inside.
        """
        if not self._held.acquire(blocking=False):
            raise duckdb.ResourceInUseException(
                "this connection is busy with a statement of another thread. Wait for its end, "
                "stop it with interrupt(), or use a cursor() of the connection."
            )

    def __exit__(self, *_: object) -> None:
        self._held.release()
