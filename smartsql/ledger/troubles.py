"""What is said when the ledger cannot be used: what failed, what is safe, and the way out."""

from __future__ import annotations

import sqlite3

from smartsql.errors import LedgerError

ELSEWHERE = "set store (or SMARTSQL_STORE) to another file"
_TORN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def trouble(path: str, what: str, error: Exception, waited_s: float) -> LedgerError:
    """The error for one of SQLite or of the system; `what` is "open", "read" or "write"."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = f"cannot {what} the store of paid answers {path!r}: {error}."
    if code in _TORN:
        return torn(path, str(error))
    if code in _BUSY:
        return LedgerError(
            f"{said} Another program has held it for {waited_s:.0f} s. Nothing more is asked, "
            f"since an answer that cannot be kept would be paid for again. All that was written "
            f"is kept: end that program, or let it end, and run the statement again."
        )
    if code in _SPACE or isinstance(error, OSError):
        return LedgerError(
            f"{said} Nothing more is asked, since an answer that cannot be kept would be paid for "
            f"again. All that was written is kept: free some space on its disk, or put right what "
            f"keeps it from being written, and run the statement again; or {ELSEWHERE}."
        )
    return LedgerError(
        f"{said} Nothing more is asked, since an answer that cannot be kept would be paid for "
        f"again. Make the file writable or {ELSEWHERE}."
    )


def torn(path: str, why: str) -> LedgerError:
    """The error for a file whose content is damaged, or was never a ledger."""
    return LedgerError(
        f"{path!r} is not a ledger, or it is damaged: {why}. It was left alone. If it is a ledger, "
        f"copy what can still be read of it into a new one with: smartsql rescue {quoted(path)} "
        f"{quoted(path + '.rescued')}  and put that in its place, or restore a backup. To begin "
        f"anew, {ELSEWHERE}."
    )


def empty(path: str) -> LedgerError:
    """The error for a file without content, which no ledger ever is."""
    return LedgerError(
        f"the store of paid answers {path!r} is empty, which a ledger never is: what it held is "
        f"gone, or it never was one. It was left alone. Restore a backup of it; or, if nothing "
        f"is to be missed, delete it (rm {quoted(path)}) and a new one is made; or {ELSEWHERE}."
    )


def halved(path: str, *, missing: str, left: str) -> LedgerError:
    """The error for a ledger of which one file is missing beside another that belongs to it."""
    return LedgerError(
        f"the store of paid answers {path!r} is incomplete: {missing} is missing beside {left}, "
        f"and with it the latest answers. Nothing was changed. Put {missing} back; or, to go on "
        f"without them (what they answer is paid for again), delete what is left of it "
        f"(rm {quoted(left)})."
    )


def unsaved(error: LedgerError, path: str, answers: int, usd: float) -> LedgerError:
    """The error where answers were paid for and could not be written.

    Args:
        answers: how many are in memory alone.
        usd: what they cost.
    """
    count = f"{answers:,} paid {'answer is' if answers == 1 else 'answers are'}"
    return LedgerError(
        f"{error} {count} (${usd:.6g}) in this program's memory alone: they are written as soon "
        f"as {path!r} takes them, at the next statement or when the connection is closed, and "
        f"lost if the program ends before."
    )


def quoted(path: str) -> str:
    """A path for a shell."""
    import shlex

    return shlex.quote(path)
