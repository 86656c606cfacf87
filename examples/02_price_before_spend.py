"""The price before the spend, a cap on it, and a rerun that goes on where the money ended.

python examples/02_price_before_spend.py
"""

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType

import smartsql


def first_example() -> ModuleType:
    """The models and the table of the first example."""
    path = Path(__file__).with_name("01_first_query.py")
    spec = importlib.util.spec_from_file_location("first_query", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


QUERY = "SELECT id FROM reviews WHERE id % 2 = 0 AND smart_llm(review, 0.05, 0.95) = 'positive'"


def main() -> None:
    first = first_example()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "answers.sqlite")
        with smartsql.connect(models=first.MODELS, store=store, budget_usd=0.001) as con:
            con.execute(first.TABLE)
            for preview in con.preview(QUERY):
                print(preview)
            try:
                con.execute(QUERY).fetchall()
            except smartsql.BudgetError as error:
                print(f"stopped: {error}")
        with smartsql.connect(models=first.MODELS, store=store, budget_usd=1.0) as con:
            con.execute(first.TABLE)
            print(f"{len(con.execute(QUERY).fetchall())} positive rows")
            print(con.reports[-1].bill())


if __name__ == "__main__":
    main()
