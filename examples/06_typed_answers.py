"""Answers with a type: a condition, a label, a STRUCT; a promise for every group; the price first.

    python examples/06_typed_answers.py

The functions stand for two language models and get the prompts that those would get.
"""

import json
import re
import tempfile
from pathlib import Path

import smartsql

COMPLAINTS = ("torn", "late", "wrong size")


def answer(prompt: str, complaints: tuple[str, ...]) -> str:
    """What a model says to the prompt of a typed call."""
    ticket = prompt.rpartition("Text: ")[2]
    if "JSON" in prompt:
        thing, price = re.findall(r"the (\w+) for (\S+) EUR", ticket)[0]
        return json.dumps({"item": thing, "price": price})
    if "Labels:" in prompt:
        return "returns" if "wrong size" in ticket else "delivery"
    return str(any(word in ticket for word in complaints)).lower()


def expert(prompts: list[str]) -> list[str]:
    """The reference."""
    return [answer(prompt, COMPLAINTS) for prompt in prompts]


def novice(prompts: list[str]) -> list[str]:
    """Cheap, and takes no wrong size for a complaint."""
    return [answer(prompt, COMPLAINTS[:2]) for prompt in prompts]


MODELS = [
    smartsql.Model(
        name=function.__name__,
        kind="python",
        function=function,
        reference=function is expert,
        input_usd_per_mtok=price,
        output_usd_per_mtok=3 * price,
    )
    for function, price in ((expert, 5.0), (novice, 0.1))
]

TABLE = """
CREATE TABLE tickets AS
SELECT i AS id, ['north', 'south'][1 + i % 2] AS region,
       format('ticket {}: the {} for {}.50 EUR was {}', i, ['bag', 'coat'][1 + i % 2], 10 + i % 7,
              CASE WHEN i % 3 = 0 THEN 'torn' WHEN i % 29 = 0 THEN 'wrong size' ELSE 'fine' END)
           AS text
FROM range(3000) t(i)
"""

QUERY = """
SELECT region, smart_classify(text, ['delivery', 'returns']) AS desk, count(*) AS n,
       sum(smart_extract(text, '{"item":"VARCHAR","price":"DECIMAL(8,2)"}').price) AS eur
FROM tickets
WHERE id < 1500 AND smart_filter(text, 'Is it a complaint?', per := region)
GROUP BY ALL ORDER BY ALL
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "answers.sqlite")
        with smartsql.connect(models=MODELS, store=store, seed=1) as con:
            con.execute(TABLE)
            for price in con.preview(QUERY):
                bounds = f"${price.low:.2f} to ${price.high:.2f}, expected ${price.expected:.2f}"
                print(
                    f"{price.call}\n    {bounds}; the reference alone ${price.reference_spend:.2f}"
                )
            con.sql(QUERY).show()
            for report in con.reports:
                print(report.bill())


if __name__ == "__main__":
    main()
