from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.secrets.canary import cleaned, shop
from tests.gateway.server import TestServer


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cleaned(monkeypatch, tmp_path)


@pytest.fixture
def server() -> Iterator[TestServer]:
    with shop() as running:
        yield running
