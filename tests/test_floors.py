"""A file imports only from its own floor and those below, and foreign libraries only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unvanish"

FLOORS = {
    **dict.fromkeys(("types", "registry", "config"), 0),
    **dict.fromkeys(("depth", "ledger", "theory", "reports", "store"), 1),
    "rules": 2,
    **dict.fromkeys(("probes", "cures"), 3),
    **dict.fromkeys(("doctor", "prediction", "treatment", "training", "watcher", "response", "pace"), 4),
    **dict.fromkeys(("train", "integrations"), 5),
    **dict.fromkeys(("cli", "__main__"), 6),
}
FLOORS |= dict.fromkeys(
    ("__version__", "Diagnosis", "Finding", "Remedy", "Site", "Trace"), 0
)  # the public names
FLOORS |= dict.fromkeys(("", "check", "assert_healthy", "watch"), 4)
FLOORS |= dict.fromkeys(("Model", "YOLO"), 5)
LAB = {"models", "tasks"}  # the wing that knows nothing of the clinic: floor 0 and itself
MEETING = {"train", "cli"}  # where the lab and the clinic meet

# what a unit may import beside the standard library; "torch in f" is allowed inside functions named f
LIBRARIES: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": set(),
    "config": set(),
    "types": {"numpy"},
    "registry": {"numpy"},
    "ledger": {"numpy"},
    "depth": {"numpy"},
    "theory": {"numpy", "lazily torch"},
    "store": {"numpy", "lazily pyarrow"},
    "pace": set(),
    "reports": {"numpy", "rich", "lazily altair", "lazily vl_convert"},
    "rules": {"numpy", "torch in sick", "torch in healthy", "torch in _case"},
    "cli": {"typer", "rich", "yaml", "lazily numpy", "lazily torch"},
    **{
        unit: {"numpy", "torch", "yaml", "rich"}
        for unit in (
            "probes",
            "cures",
            "doctor",
            "prediction",
            "treatment",
            "training",
            "watcher",
            "response",
            "models",
        )
    },
    "integrations": {"numpy", "lazily torch"},
}
# a library of somebody else's, and the only files that may import it (train/ and tasks/ have their own extra)
FOREIGN = {
    "cli/architectures.py": {"transformers", "timm"},
    "cli/story.py": {"sklearn"},
    "integrations/pytest_plugin.py": {"pytest"},
    "integrations/lightning.py": {"lightning", "torch"},
    "integrations/huggingface.py": {"transformers", "torch"},
    "integrations/ultralytics.py": {"ultralytics", "torch"},
    "integrations/keras.py": {"keras", "torch"},
    "integrations/tensorboard.py": {"tensorboard", "torch"},
    "integrations/wandb.py": {"wandb"},
    "integrations/mlflow.py": {"mlflow"},
}
UNBOUND = {"train", "tasks"}
# how a folder is a registry: the one look upwards
REGISTRY = {("registry", "rules"), ("registry", "cures"), ("registry", "reports"), ("types", "reports")}


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, its line, and the function around it ("" at module level)."""

    module: str
    line: int
    function: str


def imports(tree: ast.Module, package: str) -> list[Import]:
    """Every import of a file with the outermost function around it; those for type checkers are left out."""

    def walk(node: ast.AST, function: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                for other in child.orelse:
                    yield from walk(ast.Module([other], []), function)
            elif isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from (Import(name, child.lineno, function) for name in named(child, package))
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not function
                yield from walk(child, child.name if inside else function)

    return list(walk(tree, ""))


def named(node: ast.ImportFrom, package: str) -> list[str]:
    """The modules of `from x import a, b`, relative ones resolved; of `unvanish` itself, a and b are."""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    module = ".".join(part for part in (base, node.module) if part)
    return [f"{module}.{alias.name}" for alias in node.names] if module == "unvanish" else [module]


def faults(file: str, source: str) -> list[str]:
    """What a file imports against the rules of the house; `file` is its path below src/unvanish."""
    path = Path(file)
    unit = path.parts[0].removesuffix(".py")
    package = ".".join(("unvanish", *path.parent.parts))
    found = []
    for item in imports(ast.parse(source), package):
        head, _, rest = item.module.partition(".")
        inside = head == "unvanish"
        problem = own(unit, rest.partition(".")[0]) if inside else foreign(unit, file, head, item.function)
        if problem:
            found.append(f"{file}:{item.line}: {problem}")
    return found


def own(unit: str, target: str) -> str:
    """Why `unit` must not import `unvanish.target`, or an empty text."""
    if target in LAB:
        return "" if unit in LAB | MEETING else f"{unit} imports {target}: the clinic does not know the lab"
    if target not in FLOORS:
        return f"unvanish.{target} stands on no floor of this test"
    if unit in LAB and target == "theory":  # pure mathematics: gains and critical points
        return ""
    floor, from_floor = FLOORS[target], 0 if unit in LAB else FLOORS.get(unit, 0)
    if floor <= from_floor or (unit, target) in REGISTRY:
        return ""
    return f"{unit} (floor {from_floor}) imports {target or 'unvanish'} (floor {floor})"


def foreign(unit: str, file: str, library: str, function: str) -> str:
    """Why a file must not import a library, or an empty text."""
    if library in sys.stdlib_module_names or unit in UNBOUND:
        return ""
    if file in FOREIGN and library in FOREIGN[file]:
        return ""
    allowed = LIBRARIES.get(unit, set())
    ways = {library, f"{library} in {function}", f"lazily {library}" if function else ""}
    place = f"in {function}()" if function else "at module level"
    return "" if ways & allowed else f"{unit} imports {library} {place}"


FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_from_below(file):
    assert faults(file, (SOURCE / file).read_text(encoding="utf-8")) == []


def test_the_lower_floors_load_without_torch():
    folders = [
        name for name, floor in FLOORS.items() if floor <= 2 and (SOURCE / name / "__init__.py").exists()
    ]
    code = f"""
import importlib, pkgutil, sys, unvanish.types, unvanish.registry, unvanish.config
for name in {folders}:
    package = importlib.import_module("unvanish." + name)
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(info.name)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_unit_stands_on_a_floor():
    units = {Path(file).parts[0].removesuffix(".py") for file in FILES}
    assert units - {"__init__"} <= {*FLOORS, *LAB}


@pytest.mark.parametrize(
    ("file", "source", "told"),
    [
        ("types.py", "from unvanish.ledger import Row", "types (floor 0) imports ledger (floor 1)"),
        ("config.py", "import numpy", "config imports numpy at module level"),
        ("ledger.py", "import torch", "ledger imports torch at module level"),
        ("ledger.py", "def f():\n    import torch", "ledger imports torch in f()"),
        ("theory/predict.py", "import torch.nn as nn", "theory imports torch at module level"),
        ("reports/html.py", "import altair", "reports imports altair at module level"),
        ("reports/text.py", "from unvanish import check", "reports (floor 1) imports check (floor 4)"),
        ("rules/act001_x.py", "import torch", "rules imports torch at module level"),
        ("rules/act001_x.py", "def check(t):\n    from torch import nn", "rules imports torch in check()"),
        ("rules/act001_x.py", "from unvanish.probes.record import record", "imports probes (floor 3)"),
        ("probes/record.py", "def f():\n    import unvanish.doctor", "imports doctor (floor 4)"),
        ("probes/record.py", "from ..doctor import check", "imports doctor (floor 4)"),
        ("probes/record.py", "import unvanish", "imports unvanish (floor 4)"),
        ("doctor.py", "from unvanish.cli import app", "imports cli (floor 6)"),
        ("doctor.py", "from unvanish.models import spec", "the clinic does not know the lab"),
        ("doctor.py", "from unvanish import nowhere", "unvanish.nowhere stands on no floor"),
        ("doctor.py", "if x:\n    import lightning", "doctor imports lightning at module level"),
        ("models/spec.py", "from unvanish.probes import record", "models (floor 0) imports probes"),
        ("integrations/wandb.py", "import mlflow", "integrations imports mlflow at module level"),
        ("integrations/pytest_plugin.py", "import torch", "integrations imports torch at module level"),
        ("cli/check.py", "import torch", "cli imports torch at module level"),
        ("cli/check.py", "def f():\n    import timm", "cli imports timm in f()"),
        ("__init__.py", "import numpy", "__init__ imports numpy at module level"),
        (
            "__init__.py",
            "from unvanish.types import Site\nfrom unvanish.doctor import check",
            "imports doctor",
        ),
        ("types.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", "types imports torch"),
        ("types.py", "class A:\n    def f(self):\n        import torch", "types imports torch in f()"),
    ],
)
def test_a_violation_is_found(file, source, told):
    (found,) = faults(file, source)
    assert told in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("types.py", "import numpy\nfrom unvanish.registry import report"),
        ("types.py", "if TYPE_CHECKING:\n    import torch\n    from unvanish.doctor import check"),
        ("types.py", "if typing.TYPE_CHECKING:\n    import torch"),
        ("registry.py", "def f():\n    import unvanish.rules as folder"),
        (
            "reports/text.py",
            "from rich.text import Text\nfrom unvanish.ledger import Row\nfrom . import _bars",
        ),
        ("rules/act001_x.py", "import numpy\ndef sick():\n    import torch\n    from torch import nn"),
        ("rules/act001_x.py", "def sick():\n    class Net:\n        def f(self):\n            import torch"),
        ("doctor.py", "import torch\nfrom unvanish.probes import record\nfrom unvanish.rules import x"),
        ("models/spec.py", "from unvanish.types import Site\nfrom unvanish.tasks import data"),
        ("train/loop.py", "import accelerate\nfrom unvanish import models, watch"),
        ("cli/check.py", "import typer\ndef f():\n    import torch\n    import unvanish"),
        ("integrations/wandb.py", "import wandb\nimport unvanish"),
    ],
)
def test_what_is_right_passes(file, source):
    assert faults(file, source) == []
