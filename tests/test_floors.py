"""A file imports only from its own floor and those below, no files import in a circle, and foreign libraries
are imported only where they belong. Lazy imports and those for type checkers count.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unvanish"

# a folder is a floor; those on one line do not know each other
FLOORS = (
    ("core",),
    ("theory", "rules", "store", "symptoms"),
    ("probes", "reports", "lab"),
    ("surgery",),
    ("cures",),
    ("clinic",),
    ("train",),
    ("__init__",),
    ("integrations", "cli"),
    ("__main__",),
)
LAB_MEETS = {"lab", "train", "cli"}  # the clinic does not know the lab
LEVEL = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}

# what a folder may import beside the standard library; "torch in f" is allowed inside functions named f
LIBRARIES: dict[str, set[str]] = {
    "core": {"numpy"},
    "theory": {"numpy", "lazily torch"},
    "rules": {"numpy", "torch in sick", "torch in healthy", "torch in _case"},
    "store": {"numpy", "yaml", "lazily pyarrow"},
    "symptoms": set(),
    "reports": {"numpy", "rich", "lazily altair", "lazily vl_convert"},
    "probes": {"numpy", "torch"},
    "surgery": {"numpy", "torch"},
    "cures": {"numpy", "torch"},
    "clinic": {"numpy", "torch", "yaml", "rich"},
    "integrations": {"numpy", "lazily torch"},
    "cli": {"typer", "rich", "yaml", "lazily numpy", "lazily torch"},
}
UNBOUND = {"train", "lab"}  # they have an extra of their own
# a library of somebody else's, and the only files that may import it; a file of integrations/ names its own
FOREIGN = {
    "cli/architectures.py": {"transformers", "timm"},
    "cli/server.py": {"mcp"},
    "cli/story.py": {"sklearn"},
}


@dataclass(frozen=True)
class Import:
    """One imported name: its dotted path, its line, the function around it ("" at module level), and whether
    only a type checker sees it.
    """

    name: str
    line: int
    function: str
    typing: bool


def imports(source: str, file: str) -> list[Import]:
    """Every import of a file, `from a import b` as a.b."""
    package = ["unvanish", *Path(file).parent.parts]

    def walk(node: ast.AST, function: str, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for part in child.body:
                    yield from walk(ast.Module([part], []), function, True)
                for part in child.orelse:
                    yield from walk(ast.Module([part], []), function, typing)
            elif isinstance(child, ast.Import):
                yield from (Import(a.name, child.lineno, function, typing) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                head = ".".join([*base, *filter(None, [child.module])])
                yield from (Import(f"{head}.{a.name}", child.lineno, function, typing) for a in child.names)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not function
                yield from walk(child, child.name if inside else function, typing)

    return list(walk(ast.parse(source), "", False))


def faults(file: str, source: str) -> list[str]:
    """What a file imports against the rules of the house; `file` is its path below src/unvanish."""
    found = []
    for item in imports(source, file):
        problem = upward(unit(file), item) or foreign(file, item, wrapped(file, source))
        found += [f"{file}:{item.line}: {problem}"] if problem else []
    return found


def unit(file: str) -> str:
    """The folder of a file at the top of the package, or the file itself."""
    return Path(file).parts[0].removesuffix(".py")


def upward(here: str, item: Import) -> str:
    """Why a file of folder `here` must not import a part of the package, or an empty text."""
    parts = item.name.split(".")
    if parts[0] != "unvanish":
        return ""
    there = parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__"
    if here not in LEVEL:
        return f"{here} stands on no floor of this test"
    if there == "lab" and here not in LAB_MEETS:
        return f"{here} imports lab: the clinic does not know the lab"
    if there == here or LEVEL[there] < LEVEL[here]:
        return ""
    return f"{here} imports {there}, which is not below it"


def wrapped(file: str, source: str) -> set[str]:
    """The libraries that a file of integrations/ wraps: its own name, and those in its `LIBRARIES`."""
    if unit(file) != "integrations":
        return set()
    named = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LIBRARIES"
    )
    return {Path(file).stem, *(library for libraries in named for library in libraries)}


def foreign(file: str, item: Import, own: set[str]) -> str:
    """Why a file must not import a library, or an empty text; a type checker may see any."""
    library, here = item.name.partition(".")[0], unit(file)
    if library == "unvanish" or library in sys.stdlib_module_names or here in UNBOUND or item.typing:
        return ""
    ways = {library, f"{library} in {item.function}", f"lazily {library}" if item.function else ""}
    if ways & (LIBRARIES.get(here, set()) | FOREIGN.get(file, set()) | own):
        return ""
    place = f"in {item.function}()" if item.function else "at module level"
    hint = f"; what it wraps stands in its LIBRARIES = ({library!r},)" if here == "integrations" else ""
    return f"{here} imports {library} {place}{hint}"


def graph(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Which file imports which, by module name; a name of a package counts for the package."""
    modules = {dotted(file): file for file in files}
    arrows: dict[str, set[str]] = {module: set() for module in modules}
    for module, file in modules.items():
        for item in imports(files[file], file):
            parts = item.name.split(".")
            known = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
            target = next((name for name in known if name in modules), None)
            if target is not None and target != module:
                arrows[module].add(target)
    return arrows


def dotted(file: str) -> str:
    """`a/b.py` and `a/b/__init__.py` as unvanish.a.b."""
    return ".".join(["unvanish", *Path(file).with_suffix("").parts]).removesuffix(".__init__")


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """The modules of one circle, in order, or nothing."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(arrows[module]):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(arrows) if (found := visit(module, []))), [])


FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_from_below(file):
    assert faults(file, (SOURCE / file).read_text(encoding="utf-8")) == []


def test_no_files_import_in_a_circle():
    assert circle(graph({file: (SOURCE / file).read_text(encoding="utf-8") for file in FILES})) == []


def test_the_rooms_at_the_top_are_the_floors():
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.name[:2] != "__"}
    assert rooms - {"py.typed"} | {"__init__", "__main__"} == set(LEVEL)


def test_the_lower_floors_load_without_torch():
    folders = ("core", "theory", "rules", "store", "reports")
    code = f"""
import importlib, pkgutil, sys
for name in {folders}:
    package = importlib.import_module("unvanish." + name)
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("core/trace.py", "from unvanish.theory import phase", "core imports theory, which is not below it"),
        ("core/trace.py", "def f():\n    import unvanish.reports", "core imports reports"),
        ("core/trace.py", "if TYPE_CHECKING:\n    from unvanish.clinic.check import x", "imports clinic"),
        ("core/trace.py", "from unvanish import check", "core imports __init__, which is not below it"),
        ("core/trace.py", "import unvanish", "core imports __init__"),
        ("core/ledger.py", "import torch", "core imports torch at module level"),
        ("core/ledger.py", "def f():\n    import torch", "core imports torch in f()"),
        ("core/ledger.py", "class A:\n    def f(self):\n        import torch", "core imports torch in f()"),
        ("core/ledger.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", "core imports torch"),
        ("theory/phase.py", "from unvanish.rules import x", "theory imports rules, which is not below it"),
        ("theory/phase.py", "import torch.nn as nn", "theory imports torch at module level"),
        ("reports/run/html.py", "import altair", "reports imports altair at module level"),
        ("reports/run/html.py", "from unvanish.probes import record", "reports imports probes"),
        ("rules/act001_x.py", "import torch", "rules imports torch at module level"),
        ("rules/act001_x.py", "def check(t):\n    from torch import nn", "rules imports torch in check()"),
        ("probes/record.py", "from ..clinic.check import check", "probes imports clinic"),
        ("probes/live/eyes.py", "from ...clinic import check", "probes imports clinic"),
        ("clinic/check.py", "from unvanish.lab.models import spec", "the clinic does not know the lab"),
        ("clinic/check.py", "if x:\n    import lightning", "clinic imports lightning at module level"),
        ("lab/models/spec.py", "from unvanish.probes import record", "lab imports probes"),
        ("integrations/wandb.py", "from unvanish.cli import app", "integrations imports cli"),
        ("integrations/pytest_plugin.py", "import torch", "integrations imports torch at module level"),
        ("integrations/wandb.py", "import mlflow", "LIBRARIES = ('mlflow',)"),
        ("integrations/pytest_plugin.py", "import pytest", "integrations imports pytest at module level"),
        ("cli/check.py", "def f():\n    import timm", "cli imports timm in f()"),
        ("nowhere/check.py", "from unvanish.core import trace", "nowhere stands on no floor"),
        ("__init__.py", "import numpy", "__init__ imports numpy at module level"),
    ],
)
def test_a_violation_is_found(file, source, told):
    (found,) = faults(file, source)
    assert told in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("core/trace.py", "import numpy\nfrom unvanish.core import ledger"),
        ("core/trace.py", "if TYPE_CHECKING:\n    import torch"),
        ("reports/run/html.py", "from rich.text import Text\nfrom ..parts import bars\nfrom . import data"),
        ("rules/act001_x.py", "import numpy\ndef sick():\n    import torch\n    from torch import nn"),
        ("rules/act001_x.py", "def sick():\n    class Net:\n        def f(self):\n            import torch"),
        ("clinic/check.py", "import torch\nfrom unvanish.probes import record\nfrom unvanish.rules import x"),
        ("train/trainer.py", "import accelerate\nfrom unvanish.lab import models"),
        ("integrations/wandb.py", "import wandb\nfrom unvanish.store import Run"),
        ("integrations/pytest_plugin.py", 'import pytest\nLIBRARIES = ("pytest",)'),
        ("cli/check.py", "import typer\ndef f():\n    import torch\n    import unvanish"),
    ],
)
def test_what_is_right_passes(file, source):
    assert faults(file, source) == []


def test_a_circle_is_found():
    files = {
        "core/a.py": "from unvanish.core.b import x",
        "core/b.py": "def f():\n    from unvanish.core import c",
        "core/c.py": "if TYPE_CHECKING:\n    from unvanish.core.a import y",
        "core/d.py": "from unvanish.core.a import y",
    }
    expected = ["unvanish.core.a", "unvanish.core.b", "unvanish.core.c", "unvanish.core.a"]
    assert circle(graph(files)) == expected
