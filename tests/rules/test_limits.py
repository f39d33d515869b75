"""Every number that a verdict hangs on has a name, and stands in the page with its value and a reason."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from unvanish.core import limits
from unvanish.rules import Rule, _depth, _pages, rules

FOLDER = Path(inspect.getfile(_pages)).parent
CASES = {"sick", "healthy", "_case"}  # their numbers make a model, and judge nothing
PLAIN = {0, 1, 2, 0.5}  # counting, halves and doubles
NO_READINGS = {"_places", "_tiers", "_pages", "_scatter"}  # names, an order, text, mathematics
JUDGING = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in NO_READINGS | {"__init__"})


@pytest.mark.parametrize("rule", rules().values(), ids=lambda rule: rule.code)
def test_every_limit_stands_in_the_page_with_its_value_and_reason(rule: Rule) -> None:
    expected = {k: v for k, v in rule.settings.items() if isinstance(v, int | float)}
    assert expected == rule.settings, "a setting that is no number needs a row of another kind"
    readings = [m for m in _pages.readings(rule.module) if m.__name__.rpartition(".")[2] in JUDGING]
    for module in (rule.module, *readings):
        expected |= constants(module)
    if _depth in readings:
        expected |= constants(limits)
    rows = _pages.limits(rule.page)
    assert set(rows) == set(expected)
    for name, value in expected.items():
        number, reason = rows[name]
        assert rule.page.count(f"\n    {name} = ") == 1, f"two limits of the page are named {name}"
        assert number == pytest.approx(value, rel=2e-3), name
        assert len(reason.split()) >= 4, f"{name} has no reason"


def test_a_page_without_limits_says_so() -> None:
    for rule in rules().values():
        if not _pages.limits(rule.page):
            assert "\n\nLimits\n\nNone" in rule.page, rule.code


@pytest.mark.parametrize("file", JUDGING)
def test_no_number_judges_without_a_name(file: str) -> None:
    tree = ast.parse((FOLDER / f"{file}.py").read_text(encoding="utf-8"))
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name not in CASES]
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    bare = [f"line {n.lineno}: {n.value}" for part in (*functions, *classes) for n in numbers(part)]
    assert bare == []


def test_a_bare_number_is_found() -> None:
    source = (
        'def check(t, *, limit=3.0):\n    x = Remedy("a", {"b": 7})\n    return f"{x:.3g}" if t > 0.3 else -2'
    )
    assert [n.value for n in numbers(ast.parse(source).body[0])] == [0.3]


def constants(module: ModuleType) -> dict[str, float]:
    """The numbers that a file names in capitals."""
    tree = ast.parse(inspect.getsource(module))
    names = {
        name.id
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name) and name.id.isupper()
    }
    values = {name: getattr(importlib.import_module(module.__name__), name) for name in names}
    return {name: v for name, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def numbers(node: ast.AST) -> Iterator[ast.Constant]:
    """The numbers in a function that are not plain, a setting's default, or what a remedy asks for."""
    for name, value in ast.iter_fields(node):
        if name == "kw_defaults" or (isinstance(node, ast.Call) and ast.unparse(node.func) == "Remedy"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Constant):
                if isinstance(child.value, int | float) and child.value not in PLAIN:
                    yield child
            elif isinstance(child, ast.AST):
                yield from numbers(child)
