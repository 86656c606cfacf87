"""The proof that a query whose words were spliced still means what was written.

What had to be spelled anew is proven: the original query with exactly these nodes spelled anew,
and with brackets around every part that changed, must be the same query to DuckDB's parser. Where
it is not, the statement is refused instead of changed.
"""

from __future__ import annotations

import json
from typing import Any

from sqlglot import exp
from sqlglot.tokenizer_core import TokenType

from smartsql.sql.normalise.syntax.dialect import faithful, tokenized
from smartsql.sql.normalise.syntax.engine import is_query, parse_tree
from smartsql.sql.normalise.syntax.origins import Origin
from smartsql.sql.normalise.syntax.writer import WORDS, Writer

_REWRITTEN = frozenset({exp.Fetch})
"""Clauses that sqlglot takes apart and writes as others."""
_CONNECTORS = (exp.And, exp.Or, exp.Not, exp.Xor)


def rewritten(query: str, tree: exp.Expr, origin: Origin | None) -> str | None:
    """The text of a query that the rules changed; None if it may not mean the same.

    Args:
        query: the text it was read from.
        tree: what the rules made of it.
        origin: of the whole query, as `parse` returned it.
    """
    if origin is None:
        return None
    writer = Writer(dialect=faithful())
    text = writer.sql(tree).strip()
    before = parse_tree(query)
    if before is not None:
        proven = _same_tree(before, parse_tree(_proof(origin, writer, brackets=True)))
        return text if proven and is_query(text) else None
    # DuckDB shows no tree of PIVOT: then nothing but names and white space may differ
    proven = _same_words(query, _proof(origin, writer, brackets=False))
    return text if proven else None


def _same_words(left: str, right: str) -> bool:
    def words(text: str) -> list[str]:
        return [
            token.text if token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
            else token.text.upper()
            for token in tokenized(text)
        ]  # fmt: skip

    return words(left) == words(right)


def same_query(left: str, right: str) -> bool:
    """Whether DuckDB reads both texts as the same query; False if it cannot tell."""
    return _same_tree(parse_tree(left), parse_tree(right))


def _proof(root: Origin, written: Writer, *, brackets: bool) -> str:
    """The original query, with what a writer had to spell anew spelled anew.

    Args:
        root: origin of the whole query.
        written: the writer that wrote the changed query.
        brackets: put brackets around conditions, and around parts that changed.
    """
    writer = Writer(dialect=written.dialect)

    def write(origin: Origin) -> str:
        if id(origin) in written.kept and id(origin) not in written.spelled:
            texts = {}
            for part in origin.parts:
                exposed = brackets and id(part) in written.changed and _may_bracket(origin, part)
                text = f"({write(part)})" if exposed else write(part)
                if text != part.text:
                    texts[id(part)] = text
            return origin.with_parts(texts)
        return writer.sql(build((origin.kind, origin.shape), None)).strip()

    def build(item: Any, parent: type[exp.Expr] | None) -> Any:
        if isinstance(item, Origin):
            text = write(item)
            exposed = brackets and parent is not None and issubclass(parent, _CONNECTORS)
            node = build(
                (item.kind, () if item.parts and item.kind not in _REWRITTEN else item.shape), None
            )
            node.meta[WORDS] = f"({text})" if exposed else text
            return node
        if isinstance(item, tuple):
            kind, shape = item
            arguments = {}
            for key, value in shape:
                arguments[key] = build(value, kind)
            return kind(**arguments)
        return [build(value, parent) for value in item] if isinstance(item, list) else item

    return write(root)


def _may_bracket(origin: Origin, part: Origin) -> bool:
    """Whether brackets around a part mean nothing."""
    return issubclass(part.kind, exp.Condition) and not (
        issubclass(part.kind, (exp.Star, exp.Columns)) or issubclass(origin.kind, exp.Dot)
    )


def _same_tree(left: str | None, right: str | None) -> bool:
    """Whether two such trees mean the same; False if there is none."""
    if left is None or right is None:
        return False
    return left == right or _canonical(json.loads(left)) == _canonical(json.loads(right))


_IGNORED = {"query_location", "query_location_length", "syntax_type"}
_POWER = {"^": "pow", "**": "pow", "power": "pow"}
_OPPOSITE = {"OPERATOR_IS_NULL": "OPERATOR_IS_NOT_NULL", "COMPARE_IN": "COMPARE_NOT_IN"}
_TYPES = {
    **dict.fromkeys(("TEXT", "STRING", "BPCHAR", "CHAR", "NVARCHAR"), "VARCHAR"),
    **dict.fromkeys(("INT", "INT4", "SIGNED", "INTEGER"), "INTEGER"),
    **dict.fromkeys(("INT8", "LONG", "BIGINT"), "BIGINT"),
    **dict.fromkeys(("INT2", "SHORT", "SMALLINT"), "SMALLINT"),
    **dict.fromkeys(("FLOAT4", "REAL", "FLOAT"), "FLOAT"),
    **dict.fromkeys(("FLOAT8", "DOUBLE"), "DOUBLE"),
    **dict.fromkeys(("BOOL", "LOGICAL", "BOOLEAN"), "BOOLEAN"),
    **dict.fromkeys(("NUMERIC", "DECIMAL"), "DECIMAL"),
    **dict.fromkeys(("BYTEA", "BINARY", "VARBINARY", "BLOB"), "BLOB"),
    **dict.fromkeys(("INT128", "HUGEINT"), "HUGEINT"),
    **dict.fromkeys(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"), "TIMESTAMPTZ"),
    **dict.fromkeys(("DATETIME", "TIMESTAMP"), "TIMESTAMP"),
}


def _canonical(tree: object) -> object:
    """A parse tree without positions and with one spelling for what means the same."""
    if isinstance(tree, list):
        return [_canonical(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    node: dict[str, Any] = {
        key: _canonical(value) for key, value in tree.items() if key not in _IGNORED
    }
    if node.get("type") == "OPERATOR_NOT":
        child: Any = node["children"][0]
        if child.get("type") in _OPPOSITE:
            return {**child, "type": _OPPOSITE[child["type"]]}
    path = node.get("qualified_name", {}).get("path") if "qualified_name" in node else None
    if path:  # repeats the name as it was written, behind its schema
        node["qualified_name"] = path[:-1]
    if node.get("class") == "CONJUNCTION":  # brackets make no difference
        node["children"] = [
            part
            for child in node["children"]
            for part in (child["children"] if child.get("type") == node["type"] else [child])
        ]
    if "function_name" in node:
        node["function_name"] = _POWER.get(node["function_name"], node["function_name"])
        node.pop("is_operator", None)
    if "type_name" in node:
        name = str(node["type_name"]).upper()
        node["type_name"] = _TYPES.get(name, name)
    return node
