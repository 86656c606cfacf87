"""Smart calls on a DuckDB connection that somebody else opened (dbt, SQLAlchemy, a notebook).

    python examples/03_any_connection.py

There, calls may stand wherever DuckDB allows a window function; QUALIFY filters on an answer.
"""

import importlib.util
import tempfile
from pathlib import Path

import duckdb

import smartsql


def main() -> None:
    path = Path(__file__).with_name("01_first_query.py")
    spec = importlib.util.spec_from_file_location("first_query", path)
    assert spec and spec.loader
    first = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(first)
    with tempfile.TemporaryDirectory() as folder:
        con = duckdb.connect()
        engine = smartsql.register(
            con, models=first.MODELS, store=str(Path(folder) / "answers.sqlite")
        )
        con.execute(first.TABLE)
        con.sql(
            "SELECT id, review FROM reviews QUALIFY smart_llm(review) = 'positive' "
            "ORDER BY id LIMIT 3"
        ).show()
        con.sql(
            "SELECT answer, model, source, count(*) AS n, sum(cost_usd) AS usd "
            "FROM smart_llm(reviews, review, delta := 0.1) GROUP BY ALL ORDER BY ALL"
        ).show()
        con.sql("SELECT name, role, calls, spend_usd FROM smart_models()").show()
        print(engine.history[-1].bill())
        con.close()
        engine.close()


if __name__ == "__main__":
    main()
