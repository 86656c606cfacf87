"""Configuration from file, environment and arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartsql.config import BUILT_IN_LADDER, Model, load
from smartsql.errors import ConfigError

FILE = """
store = "answers.sqlite"
budget_usd = 5.0
default_task = "tone"
[[models]]
name = "big"
reference = true
[[models]]
name = "local"
kind = "llama_cpp"
path = "models/a.gguf"
[tasks.tone]
prompt = "Tone? {input}"
labels = ["good", "bad"]
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SMARTSQL_CONFIG", "SMARTSQL_STORE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def written(text: str = FILE, name: str = "smartsql.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_in_the_working_folder_is_found_and_its_paths_are_relative_to_it(
    tmp_path: Path,
) -> None:
    written()
    settings = load()
    assert settings.reference.name == "big"
    assert Path(settings.store) == Path("answers.sqlite")
    assert settings.task(None).labels == ("good", "bad")
    elsewhere = written(name="sub/other.toml")
    assert load(elsewhere).models[1].path == str(Path("sub/models/a.gguf"))


def test_arguments_win_over_environment_and_environment_over_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written()
    assert load().budget_usd == 5.0
    monkeypatch.setenv("SMARTSQL_BUDGET_USD", "2.5")
    assert load().budget_usd == 2.5
    assert load(budget_usd=1.0).budget_usd == 1.0
    assert load(budget_usd=None).budget_usd == 2.5


def test_the_file_named_by_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTSQL_CONFIG", str(written(name="named.toml")))
    assert load().default_task == "tone"
    monkeypatch.setenv("SMARTSQL_CONFIG", "missing.toml")
    with pytest.raises(ConfigError, match=r"missing\.toml' does not exist"):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budjet_usd = 1\n" + FILE, "Did you mean 'budget_usd'"),
        (FILE.replace("reference = true", "refrence = true"), "Did you mean 'reference'"),
        (FILE.replace("labels", "lables"), "Did you mean 'labels'"),
        (FILE.replace("reference = true", ""), "exactly one .* none has"),
        (FILE.replace('path = "models/a.gguf"', 'path = "x"\nreference = true'), "big, local have"),
        (FILE.replace('name = "local"', 'name = "big"'), "configured twice"),
        (FILE.replace('path = "models/a.gguf"', ""), "needs the key 'path'"),
        (FILE.replace("5.0", "-1"), "budget_usd.* is -1"),
        (FILE.replace('default_task = "tone"', 'default_task = "tome"'), "Did you mean 'tone'"),
        (FILE.replace("{input}", ""), "has no {input}"),
        ("models = 3", "'models'.* is 3"),
        ("= 3", "cannot read the configuration"),
        (
            FILE.replace("reference = true", "reference = true\ninput_usd_per_mtok = 1"),
            "set output_usd_per_mtok too",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_next_step(text: str, message: str) -> None:
    written(text)
    with pytest.raises(ConfigError, match=message):
        load()


def test_without_a_file_the_built_in_ladder_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no models are configured"):
        load()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    settings = load()
    assert [model.name for model in settings.models] == list(BUILT_IN_LADDER)
    assert settings.reference.name == BUILT_IN_LADDER[0]


def test_models_may_be_given_in_python(tmp_path: Path) -> None:
    model = Model(name="f", kind="python", function=lambda texts: texts, reference=True)
    assert load(models=[model], store=str(tmp_path / "x")).reference.function is model.function


def test_a_learned_model_is_never_the_reference() -> None:
    with pytest.raises(ConfigError, match="cannot be the reference"):
        load(models=[Model(name="l", kind="learned", reference=True)])
