"""Configuration from file, environment and arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from smartsql.asking.backends import build
from smartsql.config import Model, load
from smartsql.config.reading import BUILT_IN_LADDER
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
        (f"seed = {2**63}\n" + FILE, "seed.* less than or equal to 9223372036854775807"),
        (FILE.replace('name = "local"', ""), r"'models\.1\.name' in 'smartsql\.toml' is missing"),
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


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SMARTSQL_MODELS", "zzz", "the environment variable SMARTSQL_MODELS does not hold JSON"),
        ("SMARTSQL_SEED", "many", "'seed' in the environment variable SMARTSQL_SEED is 'many'"),
        ("SMARTSQL_SEED", str(2**63), "less than or equal to 9223372036854775807"),
        (
            "SMARTSQL_MAX_IN_FLIGHT",
            "0",
            "'max_in_flight' in the environment variable SMARTSQL_MAX_IN_FLIGHT is '0'",
        ),
        (
            "SMARTSQL_BUDGT",
            "1",
            "SMARTSQL_BUDGT is no setting.* Did you mean 'SMARTSQL_BUDGET_USD'",
        ),
        ("SMARTSQL_TASK__TONE__PROMPT", "x", "Did you mean 'SMARTSQL_TASKS'"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_and_the_file_is_not_blamed(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written()
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message) as raised:
        load()
    assert "smartsql.toml" not in str(raised.value)


def test_an_argument_is_not_blamed_on_file_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    written()
    monkeypatch.setenv("SMARTSQL_BUDGET_USD", "2.5")
    with pytest.raises(ConfigError, match=r"^'budget_usd' is -1: "):
        load(budget_usd=-1)


def test_variables_that_hold_keys_or_belong_to_tests_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(FILE.replace('name = "big"', 'name = "big"\napi_key_env = "SMARTSQL_KEY"'))
    monkeypatch.setenv("SMARTSQL_KEY", "secret")
    monkeypatch.setenv("SMARTSQL_TEST_ANYTHING", "1")
    assert load().reference.api_key_env == "SMARTSQL_KEY"


@pytest.mark.parametrize("key", ["sk-abcdef123", "sk_abc def", "8d2f-11", "a.b", "", "sk-abc\n"])
def test_a_key_in_place_of_its_variable_is_refused_and_never_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(FILE.replace('name = "big"', f'name = "big"\napi_key_env = {json.dumps(key)}'))
    with pytest.raises(ConfigError, match="must be the NAME of an environment variable") as raised:
        load()
    assert not key.strip() or key.strip() not in str(raised.value)
    with pytest.raises(ValidationError, match="must be the NAME") as made:
        Model(name="m", api_key_env=key)
    assert not key.strip() or key.strip() not in str(made.value)


def test_other_errors_of_a_model_do_not_show_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary93b1f0"
    nameless = {"api_key_env": canary, "reference": True}
    for models in ([nameless], nameless, [{**nameless, "name": "m", "api_key": canary}]):
        with pytest.raises(ConfigError) as raised:
            load(models=models)
        assert canary not in str(raised.value)
    monkeypatch.setenv("SMARTSQL_MODELS", f'[{{"name": "m", "api_key_env": "sk-{canary}"')
    with pytest.raises(ConfigError, match="SMARTSQL_MODELS does not hold JSON") as raised:
        load()
    assert canary not in str(raised.value)


@pytest.mark.parametrize("url", ["localhost:8000", "localhost:8000/v1", "api.example.com/v1"])
def test_an_address_without_a_scheme_is_refused_before_a_missing_key(url: str) -> None:
    model = Model(name="m", base_url=url, reference=True)
    with pytest.raises(ConfigError, match=r"'m' is .*: it has no scheme"):
        build(load(models=[model]))
    with pytest.raises(ConfigError, match="has a user") as raised:
        build(load(models=[Model(name="m", base_url=f"me:hunter2@{url}", reference=True)]))
    assert "hunter2" not in str(raised.value)


EVIDENCE = """
[[models]]
name = "big"
base_url = "http://127.0.0.1:1/v1"
reference = true
[[models]]
name = "small"
base_url = "http://127.0.0.1:1/v1"
logprobs = true
verification = "probability"
[[models]]
name = "hinted"
base_url = "http://127.0.0.1:1/v1"
hints = ["small"]
[[models]]
name = "stepped"
base_url = "http://127.0.0.1:1/v1"
uses_steps = true
prompt = "{topic}: {input}"
[[models]]
name = "local"
kind = "python"
function = "tests.models:small"
[[models]]
name = "trained"
kind = "learned"
[tasks.tone]
prompt = "Tone? {input}"
labels = ["good", "bad"]
steps = [{ name = "topic", model = "small", prompt = "Topic of {input}?", labels = ["a", "b"] }]
"""


def test_verification_hints_and_steps_are_read() -> None:
    written(EVIDENCE)
    settings = load(self_agreement=5)
    by_name = {model.name: model for model in settings.models}
    assert by_name["small"].verification == "probability"
    assert (by_name["hinted"].hints, by_name["hinted"].pruning) == (("small",), "soft")
    (step,) = settings.task("tone").steps
    assert (step.name, step.model, step.labels) == ("topic", "small", ("a", "b"))
    assert settings.self_agreement == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"probability"', "0", r'verification must be "probability" or a number of samples'),
        ('"probability"', "33", "verification must be"),
        ('"probability"', "true", "verification must be"),
        ('"probability"', '"logprobs"', "verification must be"),
        (
            "reference = true",
            'reference = true\nhints = ["small"]',
            "another function than the ref",
        ),
        (
            "reference = true",
            "reference = true\nuses_steps = true",
            "another function than the ref",
        ),
        ("reference = true", "reference = true\nverification = 2", "right by definition"),
        ('hints = ["small"]', 'hints = ["smal"]', "Did you mean 'small'"),
        ('hints = ["small"]', 'hints = ["big"]', "cannot take hints from 'big'"),
        ('hints = ["small"]', 'hints = ["hinted"]', "cannot take hints from 'hinted'"),
        ('hints = ["small"]', 'hints = ["trained"]', "cannot take hints from 'trained'"),
        ('hints = ["small"]', 'hints = ["small", "small"]', "names a hint twice"),
        ('hints = ["small"]', 'hints = ["local"]\npruning = "hard"', "gives no probabilities"),
        ('hints = ["small"]', 'hints = ["small"]\nuses_steps = true', "both hints and uses_steps"),
        ('hints = ["small"]', 'hints = ["small"]\nprompt = "{hints}"', "no {input} or {prompt}"),
        ('hints = ["small"]', 'hints = ["small"]\nprompt = "{input}"', "no {hints} or {labels}"),
        ('hints = ["small"]', 'pruning = "hard"', "pruning without hints"),
        ('hints = ["small"]', "prune_below = 0.2", "prune_below without hints"),
        ('hints = ["small"]', 'hints = ["small"]\nprune_below = 0.2', "prune_below with soft"),
        ('hints = ["small"]', 'hints = ["small"]\npruning = "medium"', "pruning"),
        ('hints = ["small"]', 'hints = ["small"]\nprune_below = 1', "prune_below"),
        ('hints = ["small"]', 'prompt = "{input}"', "prompts belong to tasks"),
        ('hints = ["small"]', 'hnits = ["small"]', "Did you mean 'hints'"),
        ('"{topic}: {input}"', '"{input}"', "no {steps} or {topic}"),
        ('tests.models:small"', 'tests.models:small"\nverification = 2', "reads no prompt"),
        ('name = "topic"', 'name = "input"', "needs another name"),
        ('name = "topic"', 'name = "two words"', "needs another name"),
        (
            'name = "topic", model = "small"',
            'name = "topic", model = "smal"',
            "Did you mean 'small'",
        ),
        ('name = "topic", model = "small"', 'name = "topic", model = "trained"', "learned model"),
        ("Topic of {input}?", "Topic?", "has no {input}"),
        ('labels = ["a", "b"]', 'labels = ["a", "A"]', "must differ by more than case"),
        ('labels = ["a", "b"]', 'lables = ["a", "b"]', "Did you mean 'labels'"),
        ('"hinted"', '"tone.topic"', "has the name of a model"),
        ('"hinted"', '"small verification"', "has the name under which"),
        ("[tasks.tone]", "[tasks.plain]\nprompt = '{input}'\n[tasks.tone]", None),
    ],
)
def test_evidence_that_cannot_work_is_refused_with_the_next_step(
    old: str, new: str, message: str | None
) -> None:
    assert old in EVIDENCE
    written(EVIDENCE.replace(old, new, 1))
    if message is None:
        assert load().task("plain").steps == ()
        return
    with pytest.raises(ConfigError, match=message):
        load()


def test_samples_make_no_sense_where_the_probability_is_known() -> None:
    written(FILE.replace('path = "models/a.gguf"', 'path = "models/a.gguf"\nverification = 4'))
    with pytest.raises(ConfigError, match='set verification = "probability"'):
        load()


def test_steps_that_nobody_has_are_refused() -> None:
    written(FILE + '[[models]]\nname = "x"\nuses_steps = true\n')
    with pytest.raises(ConfigError, match="no task has steps"):
        load()
