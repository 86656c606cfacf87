"""The first query: two functions stand for a dear and a cheap language model.

    python examples/01_first_query.py

Any callable over a list of texts can be a model; prices make it worth choosing between them.
"""

import tempfile
from pathlib import Path

import smartsql

POSITIVE, NEGATIVE = ("superb", "charming", "moving"), ("dull", "clumsy", "tedious")


def expert(reviews: list[str]) -> list[str]:
    """The reference: knows every word."""
    return ["positive" if any(w in r for w in POSITIVE) else "negative" for r in reviews]


def novice(reviews: list[str]) -> list[str]:
    """Cheap: has never heard of "charming"."""
    return ["positive" if "superb" in r or "moving" in r else "negative" for r in reviews]


MODELS = [
    smartsql.Model(
        name="expert",
        kind="python",
        function=expert,
        reference=True,
        input_usd_per_mtok=5.0,
        output_usd_per_mtok=15.0,
    ),
    smartsql.Model(
        name="novice",
        kind="python",
        function=novice,
        input_usd_per_mtok=0.1,
        output_usd_per_mtok=0.3,
    ),
]

TABLE = """
CREATE TABLE reviews AS
SELECT i AS id, format('scene {} was {}', i,
       CASE WHEN i % 40 = 0 THEN 'charming' WHEN i % 2 = 0 THEN 'superb' ELSE 'dull' END) AS review
FROM range(5000) t(i)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "answers.sqlite")
        with smartsql.connect(models=MODELS, store=store, seed=1) as con:
            con.execute(TABLE)
            con.sql("SELECT smart_llm(review, 0.1, 0.95) AS tone, count(*) AS n "
                    "FROM reviews GROUP BY ALL ORDER BY tone").show()  # fmt: skip
            report = con.reports[-1]
            for what, value in report.lines():
                print(f"{what:14} {value}")


if __name__ == "__main__":
    main()
