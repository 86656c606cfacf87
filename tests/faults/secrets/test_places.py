"""Where a key may stand in a configuration, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import smartsql
from smartsql.config import load
from smartsql.errors import ConfigError
from smartsql.gateway.openai_headers import own_headers
from tests.faults.secrets.canary import (
    CANARY,
    STATEMENT,
    VARIABLE,
    filled,
    told,
    written,
)
from tests.gateway.server import TestServer


@pytest.mark.parametrize(
    "url",
    [
        f"https://{CANARY}@api.example.com/v1",
        f"https://user:{CANARY}@api.example.com/v1",
        f"https://api.example.com/v1?api_key={CANARY}",
        f"https://api.example.com/v1#{CANARY}",
        f"http://user:{CANARY}@127.0.0.1:1/v1",
    ],
)
def test_a_key_in_an_address_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"has a user, a query or a fragment") as raised:
        load(models=[{"name": "m", "reference": True, "base_url": url}])
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    "key",
    [
        CANARY,
        "gsk_A1b2C3d4E5f6G7h8I9j0K1l2",
        "hf_abcdefghij0123456789KLMN",
        "AIzaSyA_x-9_abcdefgh",
        "AIzaSyA_x9_abcdefgh",
        "d41d8cd98f00b204e9800998ecf8427e",
        "Bearer abc",
    ],
)
@pytest.mark.parametrize("where", ["api_key_env", "api_key_secret"])
def test_a_key_in_place_of_a_name_is_refused_without_being_repeated(key: str, where: str) -> None:
    Path("smartsql.toml").write_text(
        f"[[models]]\nname = 'm'\nreference = true\n{where} = {json.dumps(key)}\n"
    )
    with pytest.raises(ConfigError, match="must be the NAME of") as raised:
        load()
    assert key not in told(raised.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"api_key": "a"},
        {"extra_headers": {"Authorization": "a"}},
        {"metadata": {"password": "a"}},
        {"user": CANARY},
        {"stop": ["a", f"Bearer {CANARY}"]},
        {"tools": [{"server": {"authorization": "x"}}]},
    ],
)
def test_a_key_among_parameters_is_refused_as_they_are_kept_with_answers(
    parameters: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match="may hold a key") as raised:
        load(models=[{"name": "m", "reference": True, "parameters": parameters}])
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("place", ["timeout_s", "kind", "reference", "requests_per_minute"])
def test_a_key_in_any_other_place_is_not_repeated_either(place: str) -> None:
    Path("smartsql.toml").write_text(f"[[models]]\nname = 'm'\n{place} = '{CANARY}'\n")
    with pytest.raises(ConfigError, match=f"models.0.{place}'.* is a str") as raised:
        load()
    assert CANARY not in told(raised.value)
    Path("smartsql.toml").write_text(f"budget_usd = {CANARY}")
    with pytest.raises(ConfigError, match="cannot read the configuration") as raised:
        load()
    assert CANARY not in told(raised.value)


def test_parameters_with_harmless_names_are_taken() -> None:
    parameters = {"max_tokens": 5, "stop": ["\n"], "logit_bias": {"50256": -100}, "user": "etl"}
    models = [{"name": "m", "reference": True, "parameters": parameters}]
    assert load(models=models).reference.parameters == parameters


def test_a_variable_that_is_not_set_is_named_unless_it_may_be_the_key_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE)
    model = smartsql.Model(name="m", reference=True, api_key_env=VARIABLE)
    with pytest.raises(
        ConfigError, match=f"'{VARIABLE}', which holds the key of model 'm', is not"
    ):
        smartsql.connect(models=[model])
    model = smartsql.Model(name="m", reference=True, api_key_env="hunter2isLong")
    with pytest.raises(ConfigError, match="is not set") as raised:
        smartsql.connect(models=[model])
    assert "hunter2" not in str(raised.value)


def test_white_space_around_a_key_is_no_part_of_it_and_within_it_is_a_mistake(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, f" {CANARY}\n")
    with smartsql.connect(config=written(server)) as con:
        assert len(filled(con, rows=2).execute(STATEMENT).fetchall()) == 2
    monkeypatch.setenv(VARIABLE, f"{CANARY}\nX-Other: 1")
    with pytest.raises(ConfigError, match="no header can hold") as raised:
        smartsql.connect(config="smartsql.toml")
    assert CANARY not in told(raised.value)


def test_headers_meant_for_openai_go_to_no_host_whose_name_only_ends_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Key: {CANARY}")
    for url in ("https://evilopenai.com/v1", "https://openai.com.evil.com/v1"):
        assert own_headers(url)["X-Key"].__class__.__name__ == "Omit"
    assert own_headers("https://api.openai.com/v1") == {}
