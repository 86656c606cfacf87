"""Keys that are secrets of DuckDB."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

import smartsql
from smartsql.config import load
from smartsql.config.keys import Keyring
from smartsql.errors import ConfigError
from tests.faults.secrets.canary import CANARY, VARIABLE, filled, logged, shown, told
from tests.gateway.server import TestServer


def secret_models(server: TestServer) -> list[smartsql.Model]:
    price = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10}
    return [
        smartsql.Model(
            name="big", reference=True, base_url=server.base_url, api_key_secret="Shop", **price
        )
    ]


@contextmanager
def with_secrets(server: TestServer, tmp_path: Path, **config: Any) -> Iterator[Any]:
    settings = {"secret_directory": str(tmp_path / "secrets"), **config}
    with smartsql.connect(
        models=secret_models(server), store=str(tmp_path / "a.sqlite"), duckdb_config=settings
    ) as con:
        yield filled(con, rows=5)


ASK = "SELECT smart_llm(review || ?) FROM reviews"


def test_a_persistent_secret_is_read_at_each_statement_while_duckdb_keeps_it_hidden(
    server: TestServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    create = "CREATE OR REPLACE PERSISTENT SECRET shop (TYPE http, BEARER_TOKEN ?)"
    with with_secrets(server, tmp_path) as con:
        con.execute(create, [CANARY])
        con.execute(ASK, ["a"]).fetchall()
        assert {c.headers["authorization"] for c in server.calls} == {f"Bearer {CANARY}"}
        rotated = CANARY.replace("7f3a", "0000")
        con.execute(create, [rotated])
        server.api_key = rotated
        con.execute(ASK, ["b"]).fetchall()
        assert server.calls[-1].headers["authorization"] == f"Bearer {rotated}"
        with pytest.raises(duckdb.Error, match="unredacted secrets is disabled"):
            con.execute("FROM duckdb_secrets(redact = false)")
        seen = (
            shown(con)
            + shown(con.engine)
            + con.reports[-1].to_json()
            + str(con.preview(ASK, ["d"]))
        )
        n_calls = len(server.calls)
        con.execute("DROP PERSISTENT SECRET shop")
        with pytest.raises(ConfigError, match="no secret of that name") as raised:
            con.execute(ASK, ["c"]).fetchall()
        assert len(server.calls) == n_calls
    seen += told(raised.value) + logged(caplog)
    seen += (tmp_path / "a.sqlite").read_bytes().decode("latin-1")
    assert CANARY not in seen and rotated not in seen


def test_a_secret_made_before_is_read_in_another_session_and_in_a_relation(
    server: TestServer, tmp_path: Path
) -> None:
    folder = str(tmp_path / "secrets")
    with duckdb.connect(config={"secret_directory": folder}) as before:
        before.execute(f"CREATE PERSISTENT SECRET shop (TYPE http, BEARER_TOKEN '{CANARY}')")
    with with_secrets(server, tmp_path) as con:
        assert len(con.sql("SELECT smart_llm(review) FROM reviews").fetchall()) == 5
    with duckdb.connect(config={"secret_directory": folder}) as bare:
        filled(bare, rows=3)
        smartsql.register(bare, models=secret_models(server), store=str(tmp_path / "b.sqlite"))
        assert len(bare.execute("SELECT smart_llm(review) FROM reviews").fetchall()) == 3


def test_a_temporary_secret_is_refused_with_the_ways_out_and_read_where_duckdb_hands_it_out(
    server: TestServer, tmp_path: Path
) -> None:
    create = f"CREATE SECRET shop (TYPE http, BEARER_TOKEN '{CANARY}')"
    with with_secrets(server, tmp_path) as con:
        con.execute(create)
        assert con.preview(ASK, ["a"])  # nothing is asked, so no key is needed
        with pytest.raises(ConfigError, match="CREATE OR REPLACE PERSISTENT SECRET") as raised:
            con.execute(ASK, ["a"]).fetchall()
        assert "api_key_env" in str(raised.value) and CANARY not in told(raised.value)
        assert not server.calls
    with with_secrets(server, tmp_path, allow_unredacted_secrets="true") as con:
        con.execute(create)
        con.execute(ASK, ["a"]).fetchall()
        assert {c.headers["authorization"] for c in server.calls} == {f"Bearer {CANARY}"}
        assert CANARY not in shown(con.engine)


def test_a_secret_goes_to_no_address_outside_its_scope(server: TestServer, tmp_path: Path) -> None:
    create = "CREATE OR REPLACE PERSISTENT SECRET shop (TYPE http, BEARER_TOKEN 'k1', SCOPE '{}')"
    server.api_key = "k1"
    with with_secrets(server, tmp_path) as con:
        for scope in ("https://api.example.com", server.base_url[:-4], server.base_url + "x"):
            con.execute(create.format(scope))
            with pytest.raises(ConfigError, match="a key is sent nowhere else"):
                con.execute(ASK, ["a"]).fetchall()
        assert not server.calls
        con.execute(create.format(server.base_url.removesuffix("/v1")))
        con.execute(ASK, ["a"]).fetchall()
        assert server.calls


def test_a_secret_that_holds_no_token_or_two_is_refused(server: TestServer, tmp_path: Path) -> None:
    create = "CREATE OR REPLACE PERSISTENT SECRET shop (TYPE http, {})"
    odd = ["HTTP_PROXY 'x'", "BEARER_TOKEN 'a;bearer_token=b'", "BEARER_TOKEN 'a b'"]
    with with_secrets(server, tmp_path) as con:
        for options in odd:
            con.execute(create.format(options))
            with pytest.raises(ConfigError, match="no BEARER_TOKEN that can be sent"):
                con.execute(ASK, ["a"]).fetchall()
    assert not server.calls


def test_a_model_has_one_place_for_its_key() -> None:
    model = {"name": "m", "reference": True, "api_key_env": VARIABLE, "api_key_secret": "shop"}
    with pytest.raises(ConfigError, match="has both api_key_env and api_key_secret"):
        load(models=[model])
    with pytest.raises(ConfigError, match="has no api_key_env"):
        Keyring(()).key(smartsql.Model(name="m"))
