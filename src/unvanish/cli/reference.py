"""`file.py:callable` and `package.module:callable`: the two ways a call can run the user's code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from unvanish.cli.errors import CallError, their_code
from unvanish.core.registry import suggest


def load(reference: str, option: str) -> Any:
    """The object that a reference names; CallError names the part that does not exist."""
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise CallError(_no_callable(reference.rstrip(":"), option))
    module = _file(Path(place), option) if place.endswith(".py") else _module(place, option)
    value: Any = module
    for part in name.split("."):
        value = _attribute(value, part, f"{option} {reference}: {place}")
    return value


def call(make: Any, reference: str, option: str, returns: str) -> Any:
    """Call a callable without arguments; CallError if it requires some."""
    needed = find_required(make)
    if needed:
        asks = f"{option} {reference}: {_name(make)} needs arguments ({', '.join(needed)})"
        raise CallError(f"{asks}; name a function without arguments that returns {returns}")
    with their_code(f"{option} {reference}: {_name(make)}()"):
        return make()


def find_required(make: Any) -> list[str]:
    """The names of a callable's required arguments."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def allow_code(wanted: Any) -> bool:
    """Whether `--allow-code` is given; with it, modules of the current folder can be imported."""
    if not isinstance(wanted, bool):
        raise CallError(f"allow_code={wanted!r} is neither true nor false")
    allowed: bool = wanted
    if allowed and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: no file here is taken for a library
    return allowed


def suggest_file(path: Path) -> str:
    """`(did you mean 'net.py'?)` for a file of the same folder and ending; empty if none is near."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder} either"
    return suggest(str(path), [str(p) for p in sorted(folder.glob(f"*{path.suffix}"))])


def _file(path: Path, option: str) -> ModuleType:
    if not path.is_file():
        raise CallError(f"{option}: there is no file {path}{suggest_file(path)}")
    full = path.resolve()
    loaded = [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(full)]
    if loaded:
        return loaded[0]
    free = path.stem.isidentifier() and path.stem not in sys.modules
    name = path.stem if free else f"_unvanish_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise CallError(f"{option}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(full.parent))
    with their_code(f"{option}: importing {path}"):
        spec.loader.exec_module(module)
    return module


def _module(name: str, option: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with their_code(f"{option}: importing {name}"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if f"{name}.".startswith(f"{missing}."):
                near = f"{_suggest_module(missing)}; a file is named by its ending, as in net.py:build"
                raise CallError(f"{option} {name}: there is no module {missing!r}{near}") from None
            raise


def _suggest_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    paths: Iterable[str] = sys.modules[parent].__path__ if parent in sys.modules else [str(Path.cwd())]
    near = suggest(last, [info.name for info in pkgutil.iter_modules(paths)])
    return near.replace("'", f"'{parent}.", 1) if near and parent else near


def _attribute(owner: Any, name: str, where: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        known = [key for key in dir(owner) if not key.startswith("_")]
        near = suggest(name, known) or _list_names(_list_defined(owner))
        raise CallError(f"{where} has no {name!r}{near}") from None


def _list_defined(owner: Any) -> list[str]:
    """The public functions and classes that a module itself defines."""
    mine = getattr(owner, "__name__", None)
    return [k for k, v in vars(owner).items() if k[0] != "_" and getattr(v, "__module__", None) == mine]


def _list_names(names: list[str]) -> str:
    return f"; it defines {', '.join(names[:8])}" if names else ""


def _no_callable(place: str, option: str) -> str:
    text = f"{option} {place} names no callable; write {place}:NAME"
    path = Path(place)
    if not path.is_file() or path.suffix != ".py":
        return text
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return text
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return text + _list_names([name for name in named if name[0] != "_"])


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__))
