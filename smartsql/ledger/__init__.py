"""The ledger: every attempt that may have cost money, and every answer that was paid for, kept.

One SQLite file in WAL mode with `synchronous = FULL`: an answer is on disk before it is used. An
answer belongs to (identity, prompt): the identity is everything but the prompt that may change an
answer (kind, endpoint, model, parameters), the prompt a 128-bit digest. Claims with a lease make
equal asks of threads and processes one call.
"""

from smartsql.ledger.claims import LEASE_S
from smartsql.ledger.lost import NOTHING, Lost
from smartsql.ledger.rows import Statement, Stored
from smartsql.ledger.store import Ledger

__all__ = ["LEASE_S", "NOTHING", "Ledger", "Lost", "Statement", "Stored"]
