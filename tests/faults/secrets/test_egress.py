"""Where requests go, and where they never do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import smartsql
from smartsql.config import load
from smartsql.errors import ConfigError, SmartSQLError
from tests.faults.secrets.canary import STATEMENT, VARIABLE, filled, written
from tests.gateway.server import Fault, TestServer


def _upper(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


def hosts_file(url: str, hosts: str) -> None:
    Path("smartsql.toml").write_text(
        f"allowed_hosts = {hosts}\n[[models]]\nname = 'm'\nreference = true\nbase_url = '{url}'\n"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://API.OpenAI.com:8443/v1",
        "https://eu.openai.azure.com/x",
        "https://[2001:db8::1]/v1",
        "http://127.0.0.1:1/v1",
    ],
)
def test_hosts_of_the_list_are_allowed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ["api.openai.com", "*.openai.azure.com", "127.0.0.1", "2001:DB8::1"]
    hosts_file(url, json.dumps(hosts))
    assert len(load().allowed_hosts) == 4
    hosts_file(url, "['nobody.example.com']")
    monkeypatch.setenv("SMARTSQL_ALLOWED_HOSTS", json.dumps(hosts))
    assert len(load().allowed_hosts) == 4
    monkeypatch.setenv("SMARTSQL_ALLOWED_HOSTS", ", ".join(hosts))
    assert load().allowed_hosts[1] == "*.openai.azure.com"
    assert load(allowed_hosts=hosts).allowed_hosts == load().allowed_hosts


@pytest.mark.parametrize(
    "url",
    [
        "https://openai.com/v1",
        "https://evil-api.openai.com/v1",
        "https://api.openai.com.evil.com/v1",
        "https://evilopenai.azure.com/v1",
        "https://openai.azure.com/v1",
        "http://127.0.0.2:1/v1",
        "http://localhost:1/v1",
    ],
)
def test_other_hosts_are_refused_before_anything_is_asked(url: str) -> None:
    hosts_file(url, "['api.openai.com', '*.openai.azure.com', '127.0.0.1']")
    with pytest.raises(ConfigError, match=r"is not among allowed_hosts \(api\.openai"):
        smartsql.connect()


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.com\\.api.openai.com/v1",
        "https://evil.com%2f.api.openai.com/v1",
        "https://evil.com\t.api.openai.com/v1",
        "https://аpi.openai.com/v1",
        "https://api.openai.com\n/v1",
        "https://evil.com;api.openai.com/v1",
        "https://api..openai.com/v1",
    ],
)
def test_addresses_that_two_readers_may_read_differently_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url of model 'm'"):
        load(models=[{"name": "m", "reference": True, "base_url": url}])


@pytest.mark.parametrize(
    "entry", ["https://api.openai.com", "api.openai.com/v1", "api.openai.com:443", "*", "", "a b"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    model = {"name": "m", "reference": True, "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigError, match="which is no name of a host"):
        load(models=[model], allowed_hosts=[entry])


def test_an_empty_variable_allows_all_hosts_as_an_empty_list_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SMARTSQL_ALLOWED_HOSTS", "")
    model = {"name": "m", "reference": True, "base_url": "http://127.0.0.1:1/v1"}
    assert load(models=[model]).allowed_hosts == ()
    with pytest.raises(ConfigError, match="is a list of hosts"):
        load(models=[model], allowed_hosts=7)


def test_plain_http_goes_to_another_machine_only_where_the_model_says_so() -> None:
    model = {"name": "m", "reference": True, "base_url": "http://gpu.lan:8000/v1"}
    with pytest.raises(ConfigError, match="allow_http = true"):
        load(models=[model])
    assert load(models=[{**model, "allow_http": True}]).reference.allow_http
    with smartsql.connect(
        store=":memory:",
        models=[
            {**model, "allow_http": True, "api_key_env": VARIABLE, "verification": 1}
            | {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "reference": False},
            {"name": "f", "reference": True, "kind": "python", "function": _upper},
        ],
    ) as con:
        assert "gpu.lan" in con.engine.backends["m"].identity(())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_to_another_host(server: TestServer, status: int) -> None:
    with TestServer() as elsewhere:
        away = Fault("redirect", status=status, location=f"{elsewhere.base_url}/chat/completions")
        server.faults = lambda call: away
        with (
            smartsql.connect(config=written(server)) as con,
            pytest.raises(SmartSQLError, match="redirects are not followed"),
        ):
            filled(con, rows=2).execute(STATEMENT).fetchall()
        assert not elsewhere.calls and server.calls
