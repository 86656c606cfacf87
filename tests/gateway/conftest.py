from __future__ import annotations

from collections.abc import Iterator

import pytest

from smartsql.gateway.openai_api import OpenAIBackend
from tests.gateway.asking import backend_for
from tests.gateway.server import TestServer


@pytest.fixture
def server() -> Iterator[TestServer]:
    with TestServer(lambda model, prompt: f"echo {prompt}") as running:
        yield running


@pytest.fixture
def backend(server: TestServer) -> Iterator[OpenAIBackend]:
    made = backend_for(server.base_url)
    yield made
    made.close()
