"""Keys of endpoints: where they come from, and how they are held so that nothing shows them.

A configuration names an environment variable (`api_key_env`) or a secret of DuckDB
(`api_key_secret`), never a key. The value is put into the header of a request and nowhere else: no
attribute, no local variable of a caller and no text of ours holds it.

DuckDB hands out the values of secrets only where `allow_unredacted_secrets` was set when the
database was opened, and then to every statement. A persistent secret lies in a file that its owner
can read, so it is read through another instance of DuckDB, which lives for that moment only; the
user's own connection stays as closed as it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from smartsql.config.settings import Model
from smartsql.errors import ConfigError
from smartsql.gateway.key import Key
from smartsql.gateway.urls import is_loopback, is_within

if TYPE_CHECKING:
    import duckdb

_SENDABLE = re.compile(r"[!-~]+")
"""What a header can hold: ASCII without white space and control characters."""
_CONVENTIONAL = re.compile(r"[A-Z_][A-Z0-9_]*")
_SAME = (
    "secret_directory",
    "extension_directory",
    "autoload_known_extensions",
    "autoinstall_known_extensions",
)
"""Settings that the other instance takes over."""
_NAMED = "WHERE lower(name) = lower(?)"
_BEARER = re.compile(r"(?:^|;)bearer_token=([A-Za-z0-9._~+/=-]+)(?=;|$)")


class Keyring:
    """The keys of the models of one engine.

    Args:
        models: of the configuration.
    """

    __slots__ = ("_found", "_secrets")

    def __init__(self, models: Sequence[Model]) -> None:
        self._secrets = tuple(m for m in models if m.kind == "openai" and m.api_key_secret)
        self._found: dict[str, Key | str] = {}

    def __repr__(self) -> str:
        return f"Keyring({[model.name for model in self._secrets]})"

    def key(self, model: Model) -> Key | None:
        """The key of a model; None where its endpoint needs none.

        Raises:
            ConfigError: its variable is not set, or it names neither variable nor secret.
        """
        if model.api_key_secret:
            name = model.name
            return Key(f"the secret {model.api_key_secret!r}", lambda: self._reveal(name))
        if model.api_key_env is not None:
            return _of_environment(model.name, model.api_key_env)
        if is_loopback(model.base_url):
            return None
        raise ConfigError(
            f"model {model.name!r} at {model.base_url} has no api_key_env; set it to the name of "
            f"the environment variable that holds the key, or api_key_secret to the name of a "
            f"secret of DuckDB."
        )

    def read(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Look at the secrets of a connection's database as they are now.

        What cannot be read is found by `check`, as nothing may be asked in the end.
        """
        if not self._secrets:
            return
        with connection.cursor() as cursor:
            for model in self._secrets:
                try:
                    self._found[model.name] = _of_secret(cursor, model)
                except ConfigError as error:
                    self._found[model.name] = str(error)

    def check(self) -> None:
        """Refuse to ask while a key is missing.

        Raises:
            ConfigError: why a secret cannot be used, and what to do.
        """
        for model in self._secrets:
            if not isinstance(found := self._found.get(model.name, _UNREAD), Key):
                raise ConfigError(found)

    def _reveal(self, model: str) -> str:
        found = self._found.get(model)
        return found.reveal() if isinstance(found, Key) else ""


_UNREAD = "no secret was read yet; register smartsql on the connection that has it."


def _of_environment(model: str, variable: str) -> Key:
    origin = f"the environment variable {variable!r}"
    if not os.environ.get(variable, "").strip():
        if not _CONVENTIONAL.fullmatch(variable):
            # a name in another style may be the key itself
            origin = "the environment variable in its api_key_env (not shown here)"
        raise ConfigError(f"{origin}, which holds the key of model {model!r}, is not set.")
    if not _SENDABLE.fullmatch(os.environ[variable].strip()):
        raise ConfigError(
            f"{origin}, which holds the key of model {model!r}, has white space or characters in "
            f"it that no header can hold; set it to the key alone."
        )
    return Key.of(os.environ[variable].strip(), origin)


class _Secret(NamedTuple):
    """What DuckDB says of a secret to everybody."""

    kind: str
    is_persistent: bool
    storage: str
    scope: list[str]


def _of_secret(cursor: duckdb.DuckDBPyConnection, model: Model) -> Key:
    """The key in a secret.

    Raises:
        ConfigError: there is none of that name, of that type, for that address, or DuckDB keeps
            it to itself.
    """
    name = model.api_key_secret
    assert name is not None
    where = f"model {model.name!r} has api_key_secret = {name!r}"
    secret = _listed(cursor, name, where)
    if secret.kind != "http":
        raise ConfigError(
            f"{where}, but that secret is of type {secret.kind}; keys of models are read from "
            f"secrets of type http: {_creation(name)}."
        )
    if secret.scope and not any(is_within(model.base_url, scope) for scope in secret.scope):
        raise ConfigError(
            f"{where}, but the scope of that secret is {', '.join(secret.scope)} and the model is "
            f"at {model.base_url}; a key is sent nowhere else."
        )
    found = _value(cursor, name, secret, where)
    if found is None:
        raise ConfigError(
            f"{where}, but that secret has no BEARER_TOKEN that can be sent: {_creation(name)}."
        )
    return found


def _creation(name: str) -> str:
    return f"CREATE OR REPLACE PERSISTENT SECRET {name} (TYPE http, BEARER_TOKEN '...')"


def _listed(cursor: duckdb.DuckDBPyConnection, name: str, where: str) -> _Secret:
    rows = cursor.execute(
        f"SELECT type, persistent, storage, scope FROM duckdb_secrets() {_NAMED}",
        [name],
    ).fetchall()
    if not rows:
        raise ConfigError(
            f"{where}, and this database has no secret of that name (one made within BEGIN counts "
            f"after COMMIT). Make it: {_creation(name)}."
        )
    if len(rows) > 1:
        raise ConfigError(
            f"{where}, and there are {len(rows)} secrets of that name, a temporary one and a "
            f"persistent one; DROP one of them."
        )
    return _Secret(*rows[0])


_READ = f"SELECT secret_string FROM duckdb_secrets(redact = false) {_NAMED}"


def _value(cursor: duckdb.DuckDBPyConnection, name: str, secret: _Secret, where: str) -> Key | None:
    """The token of a secret; None if it has none.

    Raises:
        ConfigError: DuckDB does not hand it out.
    """
    import duckdb

    (is_open,) = _one(cursor, "SELECT current_setting('allow_unredacted_secrets')")
    if is_open:
        return _token(_one(cursor, _READ, [name]), name)
    if not secret.is_persistent or secret.storage != "local_file":
        raise ConfigError(
            f"{where}, a {'persistent' if secret.is_persistent else 'temporary'} secret that "
            f"DuckDB does not hand out. Make it persistent ({_creation(name)}), or name an "
            f"environment variable in api_key_env. Opening the database with the configuration "
            f"allow_unredacted_secrets would work too, but shows all secrets to every statement."
        )
    settings = {key: _one(cursor, "SELECT current_setting(?)", [key])[0] for key in _SAME}
    try:
        with duckdb.connect(config=settings | {"allow_unredacted_secrets": True}) as own:
            return _token(_one(own, _READ, [name]), name)
    except duckdb.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{where}, and the secret cannot be read: {reason}") from None


def _one(con: duckdb.DuckDBPyConnection, query: str, values: Sequence[str] = ()) -> tuple[Any, ...]:
    """The only row of a query."""
    row: tuple[Any, ...] = con.execute(query, list(values)).fetchone() or ("",)
    return row


def _token(row: tuple[str], name: str) -> Key | None:
    """The token in DuckDB's account of a secret, unless it may be read in two ways."""
    found = set(_BEARER.findall(row[0]))
    return Key.of(found.pop(), f"the secret {name!r}") if len(found) == 1 else None
