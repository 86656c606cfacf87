"""What strategies would have cost on recorded answers: try them before you spend.

python examples/04_replay.py
"""

import tempfile
from pathlib import Path

import duckdb

from smartsql.cli import main as smartsql_command

RECORDING = """
COPY (
    WITH rows AS (
        SELECT i AS row_id, 'text ' || i AS input, hash(i) % 100 AS luck,
               CASE WHEN i % 3 = 0 THEN 'yes' ELSE 'no' END AS truth
        FROM range(3000) t(i)
    )
    SELECT row_id, input, 'large' AS model, truth AS output, 0.002 AS cost_usd FROM rows
    UNION ALL
    SELECT row_id, input, 'small', CASE WHEN luck < 4 THEN 'hm' ELSE truth END, 0.0001 FROM rows
) TO '{path}' (FORMAT parquet)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.parquet"
        duckdb.sql(RECORDING.format(path=path))
        code = smartsql_command(
            ["replay", str(path), "--reference", "large", "--delta", "0.05,0.1", "--seeds", "20",
             "--strategy", "certified,smart-model-mix,oracle-single,reference"]
        )  # fmt: skip
        raise SystemExit(code)


if __name__ == "__main__":
    main()
