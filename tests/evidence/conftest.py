from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.worlds import Made, Reply, World, reply
from tests.gateway.server import TestServer


@pytest.fixture
def replying() -> Reply:
    """What the server of `made` answers; a test module may have another."""
    return reply


@pytest.fixture
def made(tmp_path: Path, replying: Reply) -> Iterator[Made]:
    """Worlds on one server; their engines are closed in the end."""
    worlds: list[World] = []
    with TestServer(reply=replying) as server:

        def make(**settings: Any) -> World:
            worlds.append(World(tmp_path, server, **settings))
            return worlds[-1]

        yield make
        for world in worlds:
            world.close()
