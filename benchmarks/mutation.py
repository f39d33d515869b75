"""Does a changed sign fail a test? Mutants of the package, each run against the tests of its folder.

Run it with `python -m benchmarks.mutation --count 90`. A mutant has one change: a comparison, an operator, a
negation, a condition, a number or a truth value. Texts, types, decorators, errors, and nets of rules stay.
It runs in a copy of the package: the test files that bear its file's name, then all of its folder.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import record

SOURCE = record.ROOT / "src"
TESTS = {
    "rules": ["tests/rules", "tests/core"],
    "core": ["tests/core", "tests/reports", "tests/rules"],
    "theory": ["tests/theory", "tests/clinic/test_forecast.py"],
}
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
PAIRS = "Lt GtE,Gt LtE,Eq NotEq,Is IsNot,In NotIn,Add Sub,And Or,USub UAdd,Pow Mult,Mod Mult,Mult Div"
TURNED = {a: b for pair in PAIRS.split(",") for a, b in (pair.split(), pair.split()[::-1])}
STAYS = {"annotation", "returns", "decorator_list"}, {"JoinedStr", "Raise"}, {"sick", "healthy", "_case"}


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may be changed."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            marks = name in STAYS[0], type(child).__name__ in STAYS[1], getattr(child, "name", "") in STAYS[2]
            if isinstance(child, ast.AST) and not any(marks):
                yield from walk(child)


def changes(tree: ast.AST) -> Iterator[tuple[ast.AST, str, object]]:
    """Every change: a node, its attribute, and the attribute's other value."""
    for node in walk(tree):
        sign = type(node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)).__name__
        if sign in TURNED:
            other = getattr(ast, TURNED[sign])()
            compared = isinstance(node, ast.Compare)
            yield node, "ops" if compared else "op", [other, *node.ops[1:]] if compared else other
        elif sign == "Not":
            yield node, "operand", ast.UnaryOp(ast.Not(), node.operand)
        elif isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Attribute | ast.Call):
            yield node, "test", ast.UnaryOp(ast.Not(), node.test)
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield node, "value", not node.value if isinstance(node.value, bool) else 2 * node.value + 1


def judge(folder: str, limit: float, place: tuple[Path, int | None]) -> tuple[bool, str]:
    """Whether a test fails, or does not end in time, with this change of a file; and the change in words."""
    (file, number), what = place, "unchanged"
    tree = ast.parse(file.read_text())
    if number is not None:
        node, attribute, value = list(changes(tree))[number]
        what = f"{file.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)[:90]}  ->  "
        setattr(node, attribute, value)
        what += ast.unparse(ast.fix_missing_locations(node))[:90]
    word = file.stem.partition("_")[0] or file.parent.name
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(SOURCE, home, dirs_exist_ok=True)
        Path(home, file.relative_to(SOURCE)).write_text(ast.unparse(tree))
        own = {**os.environ, "PYTHONPATH": home, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        named = [str(p) for t in TESTS[folder] for p in Path(record.ROOT, t).rglob(f"test_*{word}*.py")]
        for tests in filter(None, (named, TESTS[folder])):
            command = ["timeout", f"{limit:.0f}", *PYTEST, *tests]
            if subprocess.run(command, cwd=record.ROOT, env=own, capture_output=True).returncode:
                return True, what
    return False, what


def main() -> int:
    """Judge a sample of the mutants, print them and the share that is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=90, help="mutants, shared among the folders")
    parser.add_argument("--folder", action="append", choices=list(TESTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    record.add_option(parser)
    options = parser.parse_args()
    figures, folders = {}, options.folder or list(TESTS)
    for folder in folders:
        files = sorted((SOURCE / "unvanish" / folder).rglob("*.py"))
        every = [(file, k) for file in files for k, _ in enumerate(changes(ast.parse(file.read_text())))]
        sample = random.Random(options.seed).sample(every, min(len(every), options.count // len(folders)))
        began = time.perf_counter()
        if judge(folder, 3600, (files[0], None))[0]:
            sys.exit(f"the tests of {folder} fail without a change; mend them first")
        ask = partial(judge, folder, 30 + 5 * (time.perf_counter() - began))
        killed = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for dead, what in pool.map(ask, sample):
                killed += dead
                print("killed  " if dead else "SURVIVED", " ".join(what.split()), flush=True)
        figures[f"{folder}: killed"] = killed / max(1, len(sample))
        print(f"{folder}: {killed} of {len(sample)} killed, a sample of {len(every)}", flush=True)
    record.append("mutation", options, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
