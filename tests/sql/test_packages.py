"""How the normaliser is put together: packages that import only from those before them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import smartsql.sql.normalise as normaliser

ROOT = Path(normaliser.__file__).parent
ORDER = ("syntax", "calls", "text", "binding", "analysis", "hoisting", "pushdown", "dml", "stored")
ABOVE = {"stored": "statements"}
"""What a package needs of the modules beside the packages."""


def _imported(path: Path) -> set[str]:
    """Names of the normaliser's modules that a file imports, each without the common prefix."""
    prefix = f"{normaliser.__name__}."
    return {
        node.module.removeprefix(prefix)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(prefix)
    }


def test_the_packages_are_those_that_have_an_order() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ORDER)


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_from_packages_before_it(package: str) -> None:
    allowed = {*ORDER[: ORDER.index(package) + 1], ABOVE.get(package)}
    files = sorted((ROOT / package).glob("*.py"))
    assert len(files) > 2
    for path in files:
        strangers = {name for name in _imported(path) if name.split(".")[0] not in allowed}
        assert not strangers, f"{path.name} imports {sorted(strangers)}"


@pytest.mark.parametrize("package", ORDER)
def test_modules_of_a_package_do_not_import_each_other_in_circles(package: str) -> None:
    waiting = {
        f"{package}.{path.stem}": {n for n in _imported(path) if n.startswith(f"{package}.")}
        for path in (ROOT / package).glob("*.py")
    }
    while ready := [name for name, needed in waiting.items() if needed.isdisjoint(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting, "these import each other"
