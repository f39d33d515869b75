"""The line of the user's code that a finding is about, found after a check: it costs the check nothing.

Notable:
- First the line that the finding itself names, or that the record holds of one of its operations; then the
  line where the module is made (`self.act = nn.Sigmoid()`), or the class of the user's around it; then what
  was checked as a whole. Files of torch, of installed packages and of this package are never named.
- A line is `file:12`, as seen from the working folder; a file outside of it has its whole path.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any

from torch import nn

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.trace import Trace
from unvanish.probes.lines import TORCH

QUOTED = re.compile(r"[^\s()\[\]{},;'\"`<>]+\.py:[1-9]\d{0,8}")
INSTALLED = {"site-packages", "dist-packages"}
FOREIGN = (TORCH, str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))
OPERATORS = {"Add": "add", "Sub": "sub", "Mult": "mul", "Div": "div", "MatMult": "matmul", "Pow": "pow"}
PLAIN = {"math", "np", "numpy"}  # their functions take no tensors
NAMING = {"add_module", "register_module", "register_parameter", "register_buffer"}


def locate(diagnosis: Diagnosis, model: nn.Module, loss: Any = None, origin: Any = None) -> Diagnosis:
    """The diagnosis whose findings name a line of the user's code, if there is one.

    `origin`: the function, class or file that made the model, for findings in no class of the user's.
    """
    place = functools.partial(_place, trace=diagnosis.trace, model=model, loss=loss, origin=origin)
    return replace(diagnosis, findings=tuple(map(place, diagnosis.findings)))


def locate_object(value: Any) -> str:
    """The line of a function, a class, or an object's class; of a file the first; "" if not the user's."""
    if isinstance(value, Path):
        return f"{_shorten(value)}:1" if value.is_file() else ""
    while isinstance(value, functools.partial):
        value = value.func
    if inspect.isfunction(value) or inspect.ismethod(value):
        code = getattr(inspect.unwrap(value), "__code__", None)
        if isinstance(code, CodeType) and _is_users(code.co_filename):
            return f"{_shorten(code.co_filename)}:{code.co_firstlineno}"
        return ""
    return _locate_class(value if isinstance(value, type) else type(value))


def _place(finding: Finding, trace: Trace, model: nn.Module, loss: Any, origin: Any) -> Finding:
    """The finding and its consequences with their lines."""
    follow = tuple(_place(f, trace, model, loss, origin) for f in finding.consequences)
    ways = _list_ways(finding, trace, model, loss, origin)
    line = finding.line or next(filter(None, ways), "")
    return replace(finding, line=line, consequences=follow)


def _list_ways(finding: Finding, trace: Trace, model: nn.Module, loss: Any, origin: Any) -> Iterator[str]:
    """The lines that a finding may be about, the nearest first; "" for a way that leads nowhere."""
    texts = (finding.cause, *(e.value for e in finding.evidence if isinstance(e.value, str)))
    yield from (_resolve(quoted) for text in texts for quoted in QUOTED.findall(text))
    held = {site.label: site.facts["line"] for site in trace.sites if site.facts.get("line")}
    yield from (_resolve(held[name]) for name in finding.sites if name in held)
    for path in finding.paths[:1]:
        if path == "loss" and "loss" not in model._modules:
            yield locate_object(loss) if loss is not None else ""
        else:
            yield _locate_module(model, path)
    yield locate_object(origin) if origin is not None else ""


def _locate_module(model: nn.Module, path: str) -> str:
    """The line that makes the module or the parameter at a path, or the class of the user's around it."""
    chain = [(model, "")]  # modules from the root, each with the name that it holds the next one under
    for name in path.split(".") if path else ():
        holder = chain[-1][0]
        children = [child for child in holder._modules.values() if child is not None]
        if name not in holder._modules and len(children) == 1 and name in children[0]._modules:
            chain += [(children[0], "")]  # a wrapper, such as a compiled module
            holder = children[0]
        chain[-1] = (holder, name)
        inner = holder._modules.get(name)
        if inner is None:
            break
        chain.append((inner, ""))
    return next(filter(None, (_locate_class(type(m), name) for m, name in reversed(chain))), "")


def _locate_class(kind: type, name: str = "") -> str:
    """The line that gives an attribute to objects of a class, or the only one of its methods that calls an
    operation of this name; else the line of the class, if it is the user's.
    """
    nearest = ""
    for base in kind.__mro__:
        file = _find_file(base)
        if not file:
            continue
        outline = _read_outline(file, Path(file).stat().st_mtime_ns).get(base.__qualname__)
        if outline is None:
            continue
        if name in outline.names:
            return f"{_shorten(file)}:{outline.names[name]}"
        nearest = nearest or f"{_shorten(file)}:{outline.line}"
    return nearest


@dataclass(frozen=True)
class ClassOutline:
    """The line of a class, the first one that makes each attribute of its objects, and the line of each
    operation that its methods call in one line alone.
    """

    line: int
    names: Mapping[str, int]


@functools.lru_cache(maxsize=64)
def _read_outline(file: str, stamp: int) -> Mapping[str, ClassOutline]:
    """The classes of a file by qualified name; `stamp`: when it was written, so that changes are seen."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, ClassOutline] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                names = dict(sorted(_list_names(child), key=lambda name: -name[1]))  # the first line counts
                names = {**_find_operations(child), **names}
                found.setdefault(prefix + child.name, ClassOutline(child.lineno, names))
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child, f"{prefix}{child.name}.<locals>.")
            else:
                visit(child, prefix)

    visit(tree, "")
    return found


def _list_names(node: ast.ClassDef) -> Iterator[tuple[str, int]]:
    """The attributes that the methods of a class give to `self`, with their lines."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            if isinstance(part.value, ast.Name) and part.value.id == "self":
                yield part.attr, part.lineno
        elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.args:
            first = part.args[0]
            if part.func.attr in NAMING and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value, part.lineno


def _find_operations(node: ast.ClassDef) -> dict[str, int]:
    """The operations that the methods of a class call in one line alone, by name, with that line."""
    lines: dict[str, set[int]] = {}
    for method in node.body:
        for part in ast.walk(method) if getattr(method, "name", "__init__") != "__init__" else ():
            name = ""
            if isinstance(part, ast.BinOp | ast.AugAssign):
                name = OPERATORS.get(type(part.op).__name__, "")
            elif isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
                name = part.func.id
            elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                name = "" if ast.unparse(part.func.value) in PLAIN else part.func.attr.rstrip("_")
            if name and isinstance(part, ast.expr | ast.stmt):
                lines.setdefault(name, set()).add(part.lineno)
    return {name: found.pop() for name, found in lines.items() if len(found) == 1}


def _find_file(kind: type) -> str:
    """The user's file that defines a class; "" if it is somebody else's or none."""
    try:
        file = inspect.getsourcefile(kind) or ""
    except (TypeError, OSError):
        return ""
    return file if _is_users(file) else ""


def _resolve(line: str) -> str:
    """A line that the record names, whose file may be given by its name alone; "" if no file fits."""
    file, _, number = line.rpartition(":")
    if not Path(file).is_absolute() and Path(file).is_file():
        return f"{_shorten(file)}:{number}" if _is_users(file) else ""
    files = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    same = [known for known in files if Path(known).name == Path(file).name and _is_users(known)]
    return f"{_shorten(same[0])}:{number}" if len(same) == 1 else ""


def _is_users(file: str) -> bool:
    """Whether a file is there, and neither torch's, an installed package's, Python's nor ours."""
    path = Path(file).absolute()
    parts = path.parts
    foreign = any(path.is_relative_to(folder) for folder in FOREIGN)
    return bool(file) and path.is_file() and not foreign and INSTALLED.isdisjoint(parts)


def _shorten(file: str | Path) -> str:
    """A path as seen from the working folder if it lies below it, else whole; with slashes."""
    path = Path(file).absolute()
    with_folder = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return with_folder.as_posix()
