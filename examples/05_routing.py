"""Routing: a cheap model that knows when it is unsure, and a statement that makes use of it.

    python examples/05_routing.py

The novice answers with a confidence. Rows where it is likely wrong go to the expert, draws from the
others prove that few errors are left; without confidences the same promise costs more.
"""

import tempfile
from pathlib import Path

import smartsql

POSITIVE = ("superb", "charming", "moving", "witty")
NOVICE_KNOWS = ("superb", "moving", "dull", "clumsy")


def expert(reviews: list[str]) -> list[str]:
    """The reference: knows every word."""
    return ["positive" if any(w in r for w in POSITIVE) else "negative" for r in reviews]


def novice(reviews: list[str]) -> list[tuple[str, float]]:
    """Cheap: guesses "negative" where it knows no word, and says how sure it is."""
    answers = ["positive" if "superb" in r or "moving" in r else "negative" for r in reviews]
    known = [any(w in r for w in NOVICE_KNOWS) for r in reviews]
    # it is a little less sure of long texts, too
    return [
        (a, (0.95 if k else 0.55) - len(r) / 1e4)
        for a, k, r in zip(answers, known, reviews, strict=True)
    ]


def blunt(reviews: list[str]) -> list[str]:
    """The novice's answers without its confidence."""
    return [answer for answer, _ in novice(reviews)]


def models(cheap: object) -> list[smartsql.Model]:
    price = {"input_usd_per_mtok": 5.0, "output_usd_per_mtok": 15.0}
    small = {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.3}
    return [
        smartsql.Model(name="expert", kind="python", function=expert, reference=True, **price),
        smartsql.Model(name="novice", kind="python", function=cheap, **small),
    ]


TABLE = """
CREATE TABLE reviews AS
SELECT i AS id, format('scene {} was {}', i, ['superb', 'dull', 'moving', 'clumsy', 'charming',
       'superb', 'dull', 'witty', 'clumsy', 'dull'][1 + i * 7919 % 10]) AS review
FROM range(3000) t(i)
"""


def main() -> None:
    for cheap in (blunt, novice):
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "answers.sqlite")
            with smartsql.connect(models=models(cheap), store=store, seed=1) as con:
                con.execute(TABLE)
                con.execute("SELECT smart_llm(review, 0.1, 0.95) FROM reviews").fetchall()
                print(f"--- {cheap.__name__}")
                for what, value in con.reports[-1].lines():
                    print(f"{what:14} {value}")


if __name__ == "__main__":
    main()
