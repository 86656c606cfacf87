from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.scenes import Zygotes


@pytest.fixture(scope="session")
def zygotes() -> Iterator[Zygotes]:
    """Processes that have imported everything, for all tests that start statements to kill them."""
    made = Zygotes()
    yield made
    made.close()
