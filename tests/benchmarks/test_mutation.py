"""The mutants: what is changed, and what stays."""

from __future__ import annotations

import ast

import pytest

from benchmarks import mutation


def mutants(source: str) -> list[str]:
    """Every mutant of a source, as text."""
    found = []
    for k, _ in enumerate(mutation.changes(ast.parse(source))):
        tree = ast.parse(source)
        node, attribute, value = list(mutation.changes(tree))[k]
        setattr(node, attribute, value)
        found.append(ast.unparse(ast.fix_missing_locations(tree)))
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a >= b"]),
        ("a in b", ["a not in b"]),
        ("a + b", ["a - b"]),
        ("a / b", ["a * b"]),
        ("a ** b", ["a * b"]),
        ("a and b", ["a or b"]),
        ("not a", ["not not a"]),
        ("-a", ["+a"]),
        ("x = 1.5", ["x = 4.0"]),
        ("x = False", ["x = True"]),
        ("f() if g() else h", ["f() if not g() else h"]),
        ("def f(x, *, limit=3): pass", ["def f(x, *, limit=7):\n    pass"]),
    ],
)
def test_a_mutant_has_one_change(source: str, expected: list[str]) -> None:
    assert mutants(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "'''A docstring with 1 < 2.'''",
        "def f(x: Literal[1] | None) -> tuple[int, 2]: pass",
        "@dataclass(frozen=True)\nclass A: pass",
        "raise ValueError(1 + 2)",
        "f'{x + 1:.2f}'",
        "def sick():\n    return 1 + 2",
        "if TYPE_CHECKING: pass",
    ],
)
def test_what_is_no_behaviour_stays(source: str) -> None:
    assert mutants(source) == []


def test_every_folder_has_its_tests() -> None:
    for folder, tests in mutation.TESTS.items():
        assert (mutation.SOURCE / "unvanish" / folder).is_dir()
        assert all((mutation.record.ROOT / place).exists() for place in tests)
