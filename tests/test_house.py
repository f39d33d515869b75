"""Sizes and names over the whole package: files and functions stay small, names are verbs and unique."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "unvanish"
TREES = {
    path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")
}
PARSED = {file: ast.parse(text) for file, text in TREES.items()}

FILE, MEDIAN_FILE, FUNCTION, MEDIAN_FUNCTION = 400, 120, 60, 8  # lines
# participles that do not end in -ed: `drawn` should be `draw`
PARTICIPLES = {
    "begun", "broken", "built", "carried", "chosen", "cut", "done", "drawn", "driven", "felt", "found",
    "frozen", "given", "held", "kept", "known", "laid", "led", "left", "lost", "made", "met", "put",
    "said", "seen", "sent", "shown", "split", "sunk", "taken", "taught", "thrown", "told", "torn", "undone",
    "worn", "written",
}  # fmt: skip
NO_PARTICIPLES = {
    "embed",
    "exceed",
    "feed",
    "need",
    "proceed",
    "read",
    "seed",
    "speed",
    "split",
    "cut",
    "put",
}


def functions() -> dict[str, int]:
    """The lines of every function, by file, line and name."""
    return {
        f"{file}:{node.lineno}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file, tree in PARSED.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_files_are_small():
    lines = {file: text.count("\n") for file, text in TREES.items()}
    assert {file: n for file, n in lines.items() if n > FILE} == {}
    assert statistics.median(lines.values()) <= MEDIAN_FILE


def test_functions_are_small():
    lines = functions()
    assert {place: n for place, n in lines.items() if n > FUNCTION} == {}
    assert statistics.median(lines.values()) <= MEDIAN_FUNCTION


def test_no_public_class_name_stands_twice():
    places = defaultdict(list)
    for file, tree in PARSED.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(file)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_public_functions_are_no_bare_participles():
    found = [
        f"{file}:{node.lineno}: {node.name}"
        for file, tree in PARSED.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and participle(node.name)
    ]
    assert found == []


def participle(name: str) -> bool:
    """Whether a name is one word, and that word says that something has been done."""
    return name not in NO_PARTICIPLES and (name in PARTICIPLES or (name.endswith("ed") and "_" not in name))


def classes() -> list[tuple[str, ast.ClassDef]]:
    """Every class of the package with its file."""
    return [
        (file, node)
        for file, tree in PARSED.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def assigned(node: ast.AST) -> set[str]:
    """The attributes of `self` that are assigned below a node."""
    return {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and ast.unparse(n.value) == "self"
    }


def declared(node: ast.ClassDef) -> set[str]:
    """The attributes that a class sets in `__init__`, or declares as fields, slots or setters."""
    found: set[str] = set()
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__post_init__"):
            found |= assigned(part)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            found.add(part.target.id)
        elif isinstance(part, ast.FunctionDef) and any(
            ast.unparse(d).endswith(".setter") for d in part.decorator_list
        ):
            found.add(part.name)
    return found


def test_no_attribute_is_born_after_init():
    own = {node.name: node for _, node in classes()}

    def known(node: ast.ClassDef) -> set[str]:
        bases = [own[name] for base in node.bases if (name := ast.unparse(base).split(".")[-1]) in own]
        return declared(node).union(*map(known, bases))

    late = {
        f"{file}: {node.name}": extra for file, node in classes() if (extra := assigned(node) - known(node))
    }
    assert late == {}


def test_no_privates_of_another_object_are_read():
    ours = {name for _, node in classes() for name in assigned(node) | declared(node) if name[:1] == "_"}
    ours -= {"_modules", "_parameters", "_buffers"}  # torch's own, which surgery must reach
    found = [
        f"{file}:{n.lineno}: {ast.unparse(n)}"
        for file, tree in PARSED.items()
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and n.attr in ours and n.attr[:2] != "__"
        if ast.unparse(n.value) not in ("self", "cls", "super()")
    ]
    assert found == []
