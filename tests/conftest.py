from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Processes started by tests take Ctrl-C, also where a shell started the tests in background.

    Such a shell has its children ignore it, and they hand that on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
