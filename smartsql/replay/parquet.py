"""Recordings from Parquet: one line for each (row, model)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartsql.errors import ParameterError
from smartsql.features import answer_figures, features
from smartsql.population import DIGEST_BYTES, as_halves, digest
from smartsql.profile import Features
from smartsql.replay.recording import Recording, RecordingError, total
from smartsql.types import FAILED, FloatArray, IntArray

REQUIRED = ("row_id", "input", "model", "output", "cost_usd")
OPTIONAL = (
    *("dataset", "confidence", "confidence_cost_usd", "weight"),
    *("price_in_per_mtok", "correct"),
)


def load(
    path: str | Path,
    reference: str,
    *,
    models: Sequence[str] | None = None,
    dataset: str | None = None,
) -> Recording:
    """Read a recording from a Parquet file.

    Args:
        path: one line for each (row, model) with the columns of `REQUIRED`, and where known
            those of `OPTIONAL`.
        reference: name of the model whose answers are the right ones.
        models: names of the candidates, in the order in which they are to be listed; a single
            text may hold several names between commas. All other models of the file, by mean
            cost, when None.
        dataset: value of the column `dataset` to keep.

    Raises:
        RecordingError: the file cannot be read, lacks a column, or contradicts itself.
        ParameterError: no such data set, reference or model in the file.
    """
    table = _read(Path(path), dataset)
    line_model, known = _encoded(table, "model")
    if reference not in known:
        raise _not_recorded("reference model", reference, known)
    candidates = [m for m in known if m != reference]
    if models is not None:
        candidates = [m for m in split_names(models, known) if m != reference]
    selected = [reference, *candidates]
    place = np.full(len(known), -1)
    place[[known.index(m) for m in selected]] = np.arange(len(selected))
    keep = np.flatnonzero(place[line_model] >= 0)
    lines = _Lines(table.take(keep), place[line_model[keep]], selected)
    recording = lines.recording()
    if models is not None:
        return recording
    by_cost = sorted(candidates, key=lambda m: (recording.mean_costs[m], m))
    return replace(recording, models=(reference, *by_cost))


def split_names(texts: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names out of comma-separated texts; a known name may itself hold commas.

    Raises:
        ParameterError: a part is no known name, or a name stands twice.
    """
    names: list[str] = []
    for text in texts:
        parts = text.split(",")
        while parts:
            for size in range(len(parts), 0, -1):  # the longest known name first
                name = ",".join(parts[:size]).strip()
                if name in known:
                    break
            else:
                raise _not_recorded("model", parts[0].strip(), known)
            if name in names:
                raise ParameterError(f"model {name!r} is named twice; name it once.")
            names.append(name)
            parts = parts[size:]
    return names


class _Lines:
    """The lines of the selected models, laid out by model and row."""

    def __init__(self, table: Any, place: IntArray, models: Sequence[str]) -> None:
        self.table = table
        self.models = models
        self.row, self.row_ids = _encoded(table, "row_id")
        self.n = len(self.row_ids)
        self.place = place
        cell = place * self.n + self.row
        if np.unique(cell).size < cell.size:
            double = np.flatnonzero(np.bincount(cell) > 1)[0]
            raise RecordingError(
                f"model {models[double // self.n]!r} has more than one line for row "
                f"{self.row_ids[double % self.n]!r}; keep one, or choose one data set (--dataset)."
            )

    def recording(self) -> Recording:
        """Everything a replay needs."""
        outputs, answers = _encoded(self.table, "output")
        codes = self._by_model(np.where(outputs < 0, FAILED, outputs), FAILED)
        costs, means = self._costs()
        confidences: dict[str, FloatArray] = {}
        if "confidence" in self.table.column_names:
            recorded = self._by_model(self._confidences(), np.nan)
            confidences = {m: c for m, c in recorded.items() if not np.isnan(c).all()}
        recording = Recording(
            tuple(self.models),
            {m: c.astype(np.int32) for m, c in codes.items()},
            costs,
            means,
            self._weights(),
            self._digests(),
            confidences,
            self._prompt_prices(),
            features=self._features(),
            figures=self._figures(codes, answers),
            correct=self._correct(),
        )
        return recording.verified(self._verification_costs())

    def _verification_costs(self) -> dict[str, FloatArray]:
        """Costs of the calls that gave the confidences, for models where they were extra calls."""
        if "confidence_cost_usd" not in self.table.column_names:
            return {}
        values = _numbers(self.table, "confidence_cost_usd")
        if (values < 0).any() or np.isinf(values).any():
            raise RecordingError(
                "confidence_cost_usd must be finite and at least 0, or null where the confidence "
                "came with the answer."
            )
        recorded = self._by_model(values, np.nan)
        known = {m: c for m, c in recorded.items() if not np.isnan(c).all()}
        return {m: np.where(np.isnan(c), np.nanmean(c), c) for m, c in known.items()}

    def _features(self) -> Features:
        """Figures about the inputs."""
        row_input, inputs = self._inputs()
        known = features(inputs)
        return Features(known.names, known.values[row_input])

    def _figures(self, codes: dict[str, Any], answers: list[str]) -> dict[str, Any]:
        """Figures about the answers of candidates."""
        row_input, inputs = self._inputs()
        texts = [inputs[i] for i in row_input]
        return {
            model: answer_figures([answers[c] if c >= 0 else None for c in codes[model]], texts)
            for model in self.models[1:]
        }

    def _inputs(self) -> tuple[Any, list[str]]:
        """The distinct inputs, and which of them each row has."""
        line_input, inputs = _encoded(self.table, "input")
        return self._of_row("input", line_input), [str(text) for text in inputs]

    def _by_model(self, values: Any, missing: float) -> dict[str, Any]:
        """Values of lines as one array over the rows for each model."""
        grid = np.full((len(self.models), self.n), missing, dtype=values.dtype)
        grid[self.place, self.row] = values
        return dict(zip(self.models, grid, strict=True))

    def _costs(self) -> tuple[dict[str, FloatArray], dict[str, float]]:
        """Costs, those not recorded at the model's mean, and the means."""
        values = _numbers(self.table, "cost_usd")
        if (values < 0).any() or np.isinf(values).any():
            bad = np.flatnonzero((values < 0) | np.isinf(values))[0]
            raise RecordingError(
                f"cost_usd is {values[bad]} for model {self.models[self.place[bad]]!r}, row "
                f"{self.row_ids[self.row[bad]]!r}; a cost is a finite number of at least 0."
            )
        costs, means = self._by_model(values, np.nan), {}
        for model, cost in costs.items():
            recorded = cost[~np.isnan(cost)]
            if not recorded.size:
                raise RecordingError(
                    f"model {model!r} has no cost_usd in any line, so nothing can be said about "
                    f"money. Record its costs (0 for a free model) or leave it out of --models."
                )
            mean = total(recorded) / recorded.size
            cost[np.isnan(cost)] = mean
            means[model] = total(cost) / cost.size
        return costs, means

    def _confidences(self) -> FloatArray:
        """The confidence of each line, NaN where unknown."""
        values = _numbers(self.table, "confidence")
        bad = np.flatnonzero((values < 0) | (values > 1))
        if bad.size:
            raise RecordingError(
                f"confidence is {values[bad[0]]} for model {self.models[self.place[bad[0]]]!r}, "
                f"row {self.row_ids[self.row[bad[0]]]!r}; a confidence is from 0 to 1, or null."
            )
        return values

    def _of_row(self, name: str, values: Any) -> Any:
        """A value that all lines of a row must share."""
        shared = np.zeros(self.n, dtype=values.dtype)
        shared[self.row] = values
        differs = np.flatnonzero(shared[self.row] != values)
        if differs.size:
            raise RecordingError(
                f"row {self.row_ids[self.row[differs[0]]]!r} has different values of {name} in "
                f"its lines; give each row one, or choose one data set (--dataset)."
            )
        return shared

    def _correct(self) -> dict[str, FloatArray] | None:
        """How right each answer is; one without a verdict, or not recorded, is wrong.

        None where the column is missing or holds something other than verdicts from 0 to 1: only
        a table for people uses them, so a recording is not refused for their sake.
        """
        import pyarrow as pa

        if "correct" not in self.table.column_names:
            return None
        column = self.table["correct"]
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            return None
        values = np.asarray(column.cast(pa.float64()).to_numpy())
        if (values < 0).any() or (values > 1).any():
            return None
        verdicts = self._by_model(values, np.nan)
        if any(np.isnan(v).all() for v in verdicts.values()):
            return None
        return {model: np.nan_to_num(v, nan=0.0) for model, v in verdicts.items()}

    def _weights(self) -> IntArray:
        if "weight" not in self.table.column_names:
            return np.ones(self.n, dtype=np.int64)
        values = _numbers(self.table, "weight")
        weights = self._of_row("weight", np.where(np.isnan(values), 1.0, values))
        bad = np.flatnonzero((weights < 1) | (weights != np.floor(weights)))
        if bad.size:
            raise RecordingError(
                f"weight of row {self.row_ids[bad[0]]!r} is {weights[bad[0]]}; it must be a whole "
                f"number of at least 1 (rows that carry this prompt)."
            )
        return np.asarray(weights, dtype=np.int64)

    def _digests(self) -> NDArray[np.uint64]:
        """Digests of the inputs, as SQL would see them; repeats of an input by occurrence."""
        line_input, inputs = _encoded(self.table, "input")
        text = self._of_row("input", line_input)
        if (text < 0).any():
            row = self.row_ids[int(np.flatnonzero(text < 0)[0])]
            raise RecordingError(f"row {row!r} has no input; every row needs its text.")
        of_text = [digest(str(value)) for value in inputs]
        seen: dict[int, int] = {}
        digests = [b""] * self.n
        # by row_id, so that the order of the lines in the file plays no part
        for row in sorted(range(self.n), key=lambda i: self.row_ids[i]):
            occurrence = seen[text[row]] = seen.get(text[row], -1) + 1
            digests[row] = (
                of_text[text[row]] if not occurrence else _nth(of_text[text[row]], occurrence)
            )
        return as_halves(digests)

    def _prompt_prices(self) -> dict[str, float] | None:
        """Mean price of prompt tokens by model, None unless all have one."""
        if "price_in_per_mtok" not in self.table.column_names:
            return None
        prices = self._by_model(_numbers(self.table, "price_in_per_mtok"), np.nan)
        known = {m: p[~np.isnan(p)] for m, p in prices.items()}
        if not all(p.size for p in known.values()):
            return None
        return {m: total(p) / p.size for m, p in known.items()}


def _nth(of_text: bytes, occurrence: int) -> bytes:
    """Digest of a repeated input, distinct for each occurrence."""
    key = of_text + occurrence.to_bytes(8, "big")
    return hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest()


def _read(path: Path, dataset: str | None) -> Any:
    """The lines of one data set."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        present = pq.read_schema(path).names
        missing = [name for name in REQUIRED if name not in present]
        if missing:
            raise RecordingError(
                f"{path} has no column {', '.join(missing)}; recorded answers need "
                f"{', '.join(REQUIRED)}. It has: {', '.join(present)}."
            )
        table = pq.read_table(path, columns=[c for c in REQUIRED + OPTIONAL if c in present])
    except (OSError, pa.ArrowException) as error:
        said = str(error).rstrip(".")
        raise RecordingError(
            f"cannot read {path} as a Parquet file: {said}. Recorded answers are one Parquet "
            f"file with the columns {', '.join(REQUIRED)}."
        ) from error
    if dataset is not None:
        if "dataset" not in present:
            raise ParameterError(f"{path} has no column dataset; leave --dataset out.")
        chosen = table.filter(pc.equal(table["dataset"].cast(pa.string()), dataset))
        if not chosen.num_rows:
            known = [str(name) for name in pc.unique(table["dataset"]).to_pylist()]
            raise _not_recorded("data set", dataset, known)
        table = chosen
    for name in ("row_id", "model"):
        if table[name].null_count:
            raise RecordingError(
                f"{path} has {table[name].null_count} lines without {name}; every line needs one."
            )
    if not table.num_rows:
        raise RecordingError(f"{path} has no lines; there is nothing to replay.")
    return table


def _encoded(table: Any, name: str) -> tuple[IntArray, list[Any]]:
    """A column as positions in its distinct values (in order of appearance), -1 for null."""
    import pyarrow as pa

    column = table[name]
    if name != "row_id":
        column = column.cast(pa.large_string())
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    positions = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return positions.astype(np.int64), encoded.dictionary.to_pylist()


def _numbers(table: Any, name: str) -> FloatArray:
    """A column as floats, NaN for null."""
    import pyarrow as pa

    kind = table[name].type
    is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(check(kind) for check in is_number):
        raise RecordingError(
            f"column {name} holds {kind}, not numbers; cast it to DOUBLE when the file is written."
        )
    numbers = table[name].cast(pa.float64(), safe=False)  # a large integer may lose its last digits
    return np.asarray(numbers.to_numpy(), dtype=np.float64)


def _not_recorded(what: str, name: str, known: Sequence[str]) -> ParameterError:
    """No such name in the file; says the nearest ones."""
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ParameterError(
        f"{what} {name!r} has no rows in the recording.{hint} It has: {', '.join(known)}."
    )
