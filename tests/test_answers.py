"""Answers with a type: structures, values, the constants of calls, and what becomes of failures."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

import smartsql
from smartsql.answers.schemas import structure_schema
from smartsql.answers.structures import canonical, parsed
from smartsql.answers.values import Unreadable, read
from smartsql.calls.typed import form_of, options_of, task_of
from smartsql.config import Model, Settings
from smartsql.errors import ParameterError
from smartsql.tasks import Task, folded

STRUCTURE = (
    '{"price": "DECIMAL(10,2)", "n": "int", "when": "DATE", "at": "TIMESTAMP", "ok": "BOOL", '
    '"parts": [{"name": "TEXT", "share": "DOUBLE"}]}'
)
GOOD: dict[str, Any] = {
    "price": 19.9,
    "n": 3,
    "when": "2024-01-31",
    "at": "2024-01-31T10:00:00",
    "ok": True,
    "parts": [{"name": "Bolt", "share": 0.5}],
}


def extraction(structure: str = STRUCTURE) -> Task:
    return task_of("extract", options_of("extract", structure))


def keys(*raws: str, structure: str = STRUCTURE) -> list[str | None]:
    reader = extraction(structure).reader()
    readings = [reader(raw) for raw in raws]
    return [None if reading is None else reading.key for reading in readings]


def varied(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


# -- structures ------------------------------------------------------------------------------


def test_structures_have_one_spelling() -> None:
    assert canonical(
        '{"a":"int8","b":["text"],"c":{"d":"numeric( 5 , 1 )"},"e":"VARCHAR[][]"}'
    ) == ('{"a":"BIGINT","b":["VARCHAR"],"c":{"d":"DECIMAL(5,1)"},"e":[["VARCHAR"]]}')


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        ("{", "not JSON"),
        ('["INT"]', "not a JSON object"),
        ("{}", "no fields"),
        ('{"a": 1}', "the field 'a' of the structure is 1"),
        ('{"a": "MONEY"}', "unknown type 'MONEY'"),
        ('{"a": ["INT", "INT"]}', "array of 2 entries"),
        ('{"a": {"b": "BLOB"}}', "'a.b'"),
        ('{"a": "INT", "A": "INT"}', "there twice"),
        ('{"a": "INT", "a": "INT"}', "there twice"),
        ('{" ": "INT"}', "is blank"),
        ('{"a": "DECIMAL(50,2)"}', "1 to 38 digits"),
        ('{"a": "DECIMAL(5,6)"}', "1 to 38 digits"),
        ('{"a":' * 20 + '"INT"' + "}" * 20, "nested more than"),
        (json.dumps({f"f{i}": "INT" for i in range(1001)}), "1001 fields"),
    ],
)
def test_structures_that_cannot_be_used_say_what_is_wrong(structure: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        parsed(structure)


def test_schemas_require_every_key_and_allow_null_and_nothing_else() -> None:
    schema = structure_schema(parsed('{"a": "INT", "b": [{"c": "DATE"}]}'))
    inner = {
        "type": "object",
        "properties": {"c": {"type": ["string", "null"], "format": "date"}},
        "required": ["c"],
        "additionalProperties": False,
    }
    items = {"anyOf": [inner, {"type": "null"}]}
    assert schema == {
        "type": "object",
        "properties": {
            "a": {"type": ["integer", "null"], "minimum": -(2**31), "maximum": 2**31 - 1},
            "b": {"anyOf": [{"type": "array", "items": items}, {"type": "null"}]},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        json.dumps(dict(reversed(GOOD.items()))),
        json.dumps(GOOD, indent=3),
        f"```json\n{json.dumps(GOOD)}\n```",
        varied(price="19.90"),
        varied(price=19.899),
        varied(price="+1.99e1"),
        varied(n=3.0),
        varied(n="3"),
        varied(when="2024/1/31"),
        varied(when="2024-01-31T00:00:00Z"),
        varied(at="2024-01-31 10:00:00.000"),
        varied(at="2024-01-31T12:00:00+02:00"),
        varied(ok="yes"),
        varied(parts=[{"share": 5e-1, "name": ' "bolt". '}]),
    ],
)
def test_answers_of_the_same_value_agree_however_they_are_written(other: str) -> None:
    mine, its = keys(json.dumps(GOOD), other)
    assert mine is not None and its == mine


@pytest.mark.parametrize(
    "other",
    [
        varied(price=19.91),
        varied(n=None),
        varied(when="2024-01-30"),
        varied(at="2024-01-31T10:00:01"),
        varied(ok=False),
        varied(parts=[]),
        varied(parts=None),
        varied(parts=[{"name": None, "share": 0.5}]),
        varied(parts=[{"name": "Nut", "share": 0.5}]),
        varied(parts=[{"name": "", "share": 0.5}]),
        varied(parts=GOOD["parts"] * 2),
    ],
)
def test_answers_of_another_value_do_not_agree(other: str) -> None:
    mine, its = keys(json.dumps(GOOD), other)
    assert its is not None and its != mine


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("no idea", "not JSON"),
        (json.dumps(GOOD)[:-5], "not JSON"),
        ("null", "null, not an object"),
        ("[]", "a list, not an object"),
        ("[" * 100_000, "not JSON"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "n"}), "'n' is missing"),
        (varied(more=1), "'more' is not in the structure"),
        (varied(parts=[{"name": "Bolt"}]), "'share' is missing in 'parts\\[0\\]'"),
        (varied(price="about 20"), "price is 'about 20', not a number"),
        (varied(price=10**8), "too large for DECIMAL"),
        (varied(price=True), "a truth value"),
        (varied(price=[1]), "price is a list"),
        (varied(n=3.5), "no INTEGER"),
        (varied(n=2**31), "out of the range"),
        (varied(when="2024-02-30"), "no day of the calendar"),
        (varied(when="yesterday"), "not a date"),
        (varied(when="2024-01-31T10:00:00"), "not a date"),
        (varied(at="noon"), "not a date and time"),
        (varied(ok="maybe"), "not true or false"),
        (varied(parts={}), "not a list"),
        (varied(parts=[{"name": "\ud800", "share": 1}]), "lone surrogate"),
        (varied(parts=[{"name": "x", "share": float("nan")}]), "NaN"),
        (varied().replace("0.5", "1e999"), "too large for DOUBLE"),
        (varied().replace("19.9", "1" * 500), "500 digits"),
        (varied().replace("19.9", "1e99999999999999999999"), "beyond all types"),
        (varied().replace('"n": 3', '"n": 3, "n": 4'), "the key 'n' stands in it twice"),
        (varied().replace('"n": 3', '"n": 3, "n": 3'), "twice"),
        (varied().replace('"share": 0.5', '"share": 0.5, "share": 5'), "'share' stands in it"),
        (varied(n="NaN"), "not a number"),
        (varied(n=2**100), "out of the range"),
        (varied(ok=1), "not true or false"),
    ],
)
def test_what_is_not_of_the_structure_is_no_answer_and_says_why(raw: str, why: str) -> None:
    assert keys(raw) == [None]
    with pytest.raises(Unreadable, match=why):
        read(raw, parsed(STRUCTURE), folded)


@pytest.mark.parametrize(
    ("kind", "same", "other"),
    [
        ("HUGEINT", ("1e38", f"{10**38}", f'"{10**38}"', "1.0e38"), f"{10**38 + 1}"),
        ("BIGINT", ("9007199254740993", "9007199254740993.0"), "9007199254740992"),
        ("DOUBLE", ("0", "-0.0", "0e9"), "5e-324"),
        ("DECIMAL(38,9)", ("0.123456789", "0.1234567890", "12345678.9e-8"), "0.123456788"),
        ("DOUBLE", ("1e3", "1000", '"1,000.0"', "1E+3"), "1000.0000000000002"),
        ("FLOAT", ("0.1", "0.10000000149011612"), "0.11"),
        ("VARCHAR", ('"a"', '" A. "'), '"b"'),
        ("VARCHAR", ("null",), '"null"'),
        ("VARCHAR", ("null",), '""'),
        ("BOOLEAN", ("true", '"True"', '"yes"'), "null"),
        ("TIME", ('"09:30"', '"09:30:00.000"', '"09:30Z"'), '"09:30:01"'),
    ],
)
def test_values_agree_when_and_only_when_duckdb_would_hold_the_same(
    kind: str, same: tuple[str, ...], other: str
) -> None:
    raws = [f'{{"v": {text}}}' for text in (*same, other)]
    *found, last = keys(*raws, structure=f'{{"v": "{kind}"}}')
    assert len(set(found)) == 1 and None not in found
    assert last is not None and last != found[0]


def test_lists_and_structs_are_not_flattened_when_they_are_compared() -> None:
    structure = '{"a": [["INT"]], "b": {"c": ["INT"]}}'
    raws = [
        '{"a": [[1], [2]], "b": {"c": [3]}}',
        '{"a": [[1, 2]], "b": {"c": [3]}}',
        '{"a": [[1], [2], []], "b": {"c": [3]}}',
        '{"a": [[1], [2], null], "b": {"c": [3]}}',
        '{"a": [[2], [1]], "b": {"c": [3]}}',
        '{"a": [[1], [2]], "b": {"c": null}}',
        '{"a": [[1], [2]], "b": {"c": [null]}}',
        '{"a": [[1], [2]], "b": {"c": []}}',
        '{"a": [[1], [2]], "b": null}',
        '{"a": null, "b": {"c": [3]}}',
    ]
    found = keys(*raws, structure=structure)
    assert None not in found and len(set(found)) == len(raws)


def test_values_reach_duckdb_exactly() -> None:
    import duckdb

    structure = (
        '{"d":"DECIMAL(38,10)","h":"HUGEINT","u":"UBIGINT","f":"FLOAT","x":"DOUBLE","t":"TIME",'
        '"z":"DECIMAL(4,1)","s":"VARCHAR","e":"UTINYINT"}'
    )
    raw = (
        '{"d": 1234567890123456789012345678.0123456789, '
        '"h": -170141183460469231731687303715884105728, "u": 18446744073709551615, '
        '"f": 0.1, "x": 5e-324, "t": "09:30", "z": -0.04, "s": 12.50, "e": 255}'
    )
    shown = read(raw, parsed(structure), folded).shown
    with duckdb.connect() as con:
        query = "SELECT json_transform_strict(?, ?)"
        (row,) = con.execute(query, [json.dumps(shown), structure]).fetchone() or ()
    assert row["d"] == Decimal("1234567890123456789012345678.0123456789")
    assert (row["h"], row["u"], row["e"]) == (-(2**127), 2**64 - 1, 255)
    assert row["f"] == pytest.approx(0.1) and row["x"] == 5e-324
    assert (str(row["t"]), row["z"], row["s"]) == ("09:30:00", Decimal("0.0"), "12.50")


# -- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("true", "true"),
        (" True.", "true"),
        ("No", "false"),
        ('{"answer": true}', "true"),
        ('{"answer": "no"}', "false"),
        ('```json\n{"answer": false}\n```', "false"),
        ("Yes, the text says so.", "true"),
        ("yes: true", "true"),
        ("true or false", None),
        ("maybe", None),
        ('{"answer": null}', None),
        ('{"answer": ["true"]}', None),
        ('{"verdict": true}', None),
        ('{"answer": tru', None),
    ],
)
def test_filters_read_truth_in_words_and_objects(raw: str, value: str | None) -> None:
    reading = task_of("filter", options_of("filter", "Is it?")).reader()(raw)
    assert (reading and reading.text) == value


def test_classes_are_exactly_the_labels() -> None:
    task = task_of("classify", options_of("classify", '["very good", "bad", "{x}"]'))
    read_answer = task.reader()
    said = ["VERY  GOOD!", '{"answer": "bad"}', "{x}", "bad: it is long", "good", '{"answer": 1}']
    found = [reading and reading.text for reading in map(read_answer, said)]
    assert found == ["very good", "bad", "{x}", "bad", None, None]


@pytest.mark.parametrize(
    ("kind", "subject", "said"),
    [
        ("filter", None, "question of smart_filter is NULL"),
        ("filter", " \n", "question of smart_filter is empty"),
        ("classify", None, "labels of smart_classify is NULL"),
        ("classify", "[]", "labels of smart_classify are 0"),
        ("classify", '["a"]', "are 1"),
        ("classify", '["a", null]', "not all texts"),
        ("classify", '["a", " A. "]', "must differ"),
        ("classify", '["a", "..."]', "blank"),
        ("classify", json.dumps([str(i) for i in range(1001)]), "are 1001"),
        ("extract", None, "structure of smart_extract is NULL"),
        ("extract", "", "structure of smart_extract is empty"),
    ],
)
def test_constants_that_ask_nothing_are_refused(kind: str, subject: str | None, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        options_of(kind, subject)


def test_neither_the_cell_nor_the_question_is_a_template() -> None:
    task = task_of("filter", options_of("filter", "Does {input} stand in it? {labels}"))
    prompt = task.render("a cell with {input} and {question}")
    assert prompt.count("{input}") == 2 and prompt.count("a cell with") == 1
    assert task.rendered(["a cell with {input} and {question}"]) == [prompt]
    assert prompt.startswith("Does {input} stand in it? {labels}\n")


def test_forms_follow_the_labels_that_are_left() -> None:
    task = task_of("classify", options_of("classify", '["a", "b", "c"]', "Choose."))
    form = form_of(task, ("a", "c"))
    assert form is not None and not form.is_open
    assert json.loads(form.schema)["properties"]["answer"]["enum"] == ["a", "c"]
    assert form_of(Task(labels=("a", "b")), ("a", "b")) is None


# -- through the engine ----------------------------------------------------------------------


class World:
    """A session with models whose answers a test decides, and a ledger that outlives it."""

    def __init__(self, store: str, answer: dict[str, str], **settings: Any) -> None:
        self.asked: list[str] = []

        def big(texts: list[str]) -> list[str]:
            self.asked += texts
            return [answer[text] for text in texts]

        model = Model(
            name="big",
            kind="python",
            function=big,
            version="1",
            parameters={"reads": "cell"},
            reference=True,
            input_usd_per_mtok=1,
            output_usd_per_mtok=1,
        )
        self.con = smartsql.connect(config=Settings(store=store, models=(model,), **settings))
        rows = pa.table({"x": sorted(answer)})
        self.con.register("t", rows)

    def ask(self, expression: str) -> list[Any]:
        with self.con as con:
            return [row[0] for row in con.execute(f"SELECT {expression} FROM t").fetchall()]


def test_another_question_never_gets_an_answer_to_this_one(tmp_path: Any) -> None:
    store = str(tmp_path / "a.sqlite")
    questions = [
        "smart_filter(x, 'Is it red?')",
        "smart_filter(x, 'Is it blue?')",
        "smart_classify(x, ['true', 'false'])",
        "smart_classify(x, ['true', 'false', 'unknown'])",
        "smart_classify(x, ['true', 'false'], instruction := 'Think.')",
        "smart_classify(x, ['false', 'true'])",
        "smart_filter(x, 'is it red?')",
        'smart_extract(x, \'{"answer": "BOOLEAN"}\')',
        'smart_extract(x, \'{"answer": "VARCHAR"}\')',
        "smart_extract(x, '{\"answer\": \"BOOLEAN\"}', instruction := 'Think.')",
        "smart_llm(x)",
    ]
    for question in questions:
        raw = '{"answer": true}' if "extract" in question else "true"
        world = World(store, {"some text": raw})
        world.ask(question)
        assert world.asked == ["some text"], question
    for question in questions:
        again = World(store, {"some text": "never asked"})
        found = again.ask(question)
        assert again.asked == [] and found[0] in (
            True,
            "true",
            {"answer": True},
            {"answer": "true"},
        )
    same = World(store, {"some text": "never asked"})  # another spelling of one structure
    assert same.ask('smart_extract(x, \' {"answer" : "bool"}\')') == [{"answer": True}]
    assert same.asked == []


@pytest.mark.parametrize("on_error", ["error", "null"])
def test_an_answer_of_another_type_is_no_answer_and_is_asked_again(
    tmp_path: Any, on_error: str
) -> None:
    store = str(tmp_path / "a.sqlite")
    call = 'smart_extract(x, \'{"n": "INTEGER"}\')'
    bad = World(store, {"a": '{"n": "many"}', "b": '{"n": 2}'}, on_error=on_error)
    if on_error == "error":
        with pytest.raises(
            smartsql.GatewayError, match=r"""answered '\{"n": "many"\}'.*n is 'many'"""
        ):
            bad.ask(call)
    else:
        assert bad.ask(call) == [None, {"n": 2}]
        assert bad.con.reports[-1].error_rows == 1
    better = World(store, {"a": '{"n": 1}', "b": "not asked again"}, on_error=on_error)
    assert better.ask(call) == [{"n": 1}, {"n": 2}]
    assert better.asked == ["a"]
    last = World(store, {"a": "not asked again", "b": "not asked again"})
    assert last.ask(call) == [{"n": 1}, {"n": 2}] and last.asked == []


def test_failed_answers_of_a_candidate_are_no_agreement() -> None:
    def settings(small: Any) -> Settings:
        price = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}
        big = Model(
            name="big",
            kind="python",
            function=lambda texts: ["null" if "7" in t else '{"n": 1}' for t in texts],
            reference=True,
            **{key: 100 * value for key, value in price.items()},
        )
        cheap = Model(name="small", kind="python", function=small, **price)
        return Settings(store=":memory:", seed=1, on_error="null", models=(big, cheap))

    with smartsql.connect(config=settings(lambda texts: ["null"] * len(texts))) as con:
        con.execute("CREATE TABLE t AS SELECT 'text ' || range AS x FROM range(400)")
        con.execute('SELECT smart_extract(x, \'{"n": "INTEGER"}\') FROM t').fetchall()
        report = con.reports[-1]
    assert report.assigned_rows == 0
    assert report.error_rows == sum("7" in str(i) for i in range(400))


def test_reports_of_typed_calls_are_verified_from_the_ledger(tmp_path: Any) -> None:
    from smartsql.ledger import Ledger
    from smartsql.reports.verify import verify

    store = str(tmp_path / "a.sqlite")
    answers = {f"text {i}": json.dumps({"n": i % 3, "d": "2024-1-5"}) for i in range(50)}
    world = World(store, answers)
    world.ask('smart_extract(x, \'{"n": "INTEGER", "d": "DATE"}\')')
    report = world.con.reports[-1].to_dict()
    ledger = Ledger(store)
    assert all(check.holds for check in verify(report, ledger))
    ledger.close()
