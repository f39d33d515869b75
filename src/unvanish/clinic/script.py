"""A prescription as a Python file that runs as it stands: imports, and a function for each cure.

Notable: where a function belongs follows from the names that its lines read and assign: the model alone, the
optimizer, the loss of a step, or a line within a forward. What only a person can write stays a comment.
"""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count, groupby

from unvanish.core.diagnosis import Remedy
from unvanish.core.names import show
from unvanish.core.version import __version__
from unvanish.cures import cure

INPUTS = ("model", "optimizer", "loss_fn", "x", "y", "scaler")  # of the user, in the order of arguments
KNOWN = {"torch", "nn", *dir(builtins)}
RESULTS = ("loss", "loss_fn", "warm_up", "scaler", "x", "h", "y")  # returned: the first that the lines assign
PLACES = {
    "start": "once, before the optimizer is made",
    "optimizer": "once, when the optimizer is there",
    "criterion": "once: train with the loss that it returns",
    "batch": "at every step, before the model",
    "loss": "at every step, in place of the loss",
    "step": "at every step, between backward and optimizer.step()",
    "forward": "in the forward, at this operation",
}
ONCE = "scaler"  # made once, and then used at every step


@dataclass(frozen=True)
class ScriptPart:
    """A function of the script: its name, arguments, lines, what it returns, and its place in `PLACES`."""

    name: str
    arguments: tuple[str, ...]
    lines: tuple[str, ...]
    result: str
    place: str

    def write(self) -> list[str]:
        """The function as lines."""
        body = [f"    {line}".rstrip() for line in self.lines]
        end = [f"    return {self.result}"] if self.result else []
        return [
            f"def {self.name}({', '.join(self.arguments)}):",
            f'    """{PLACES[self.place][:1].upper()}{PLACES[self.place][1:]}."""',
            *body,
            *end,
        ]


def write_script(remedies: Sequence[Remedy]) -> str:
    """The script; ValueError for settings that a cure cannot have."""
    parts: list[ScriptPart] = []
    blocks: list[str] = []
    for (name, *_), group in groupby(remedies, key=_read_key):
        steps = list(group)
        lines = [line for remedy in steps for line in cure(name).code(remedy)]
        why = f"# {name}: {show(steps[0].why)}" if steps[0].why else f"# {name}"
        found = _split(name, lines, {part.name for part in parts})
        written = ["\n".join(part.write()) for part in found] or ["\n".join(lines)]
        blocks.append("\n\n\n".join([f"{why}\n{written[0]}", *written[1:]]))
        parts += found
    title = f'"""What `unvanish cure` found, by hand (unvanish {__version__})."""'
    head = f"{title}\n\nimport torch\nfrom torch import nn"
    return "\n\n\n".join([head, *blocks, *_write_order(parts)]) + "\n"


def _read_key(remedy: Remedy) -> tuple[str, str, str]:
    """What remedies of one function share: the cure, and the argument of the model that they change."""
    settings = remedy.parameters
    return remedy.cure, str(settings.get("argument", "")), str(settings.get("place", ""))


def _split(name: str, lines: Sequence[str], taken: Collection[str]) -> list[ScriptPart]:
    """The functions for one cure's lines; none if they are comments alone."""
    tree = ast.parse("\n".join(lines))
    if not tree.body:
        return []
    word = name.replace("-", "_")
    word = next(w for w in chain([word], (f"{word}_{n}" for n in count(2))) if w not in taken)
    made = [node for node in tree.body if ONCE in _list_assigned(node)]
    if not made:
        return [_make_part(word, lines)]
    cut = made[-1].end_lineno or 0
    return [_make_part(f"make_{ONCE}", lines[:cut]), _make_part(word, lines[cut:])]


def _make_part(name: str, lines: Sequence[str]) -> ScriptPart:
    tree = ast.parse("\n".join(lines))
    assigned = {word for node in tree.body for word in _list_assigned(node)}
    free = _find_free(tree, lines)
    result = next((word for word in RESULTS if word in assigned), "")
    arguments = [w for w in INPUTS if w in free] + sorted(free - set(INPUTS))
    name = f"make_{name}" if name == result else name  # it could be called once only
    return ScriptPart(name, tuple(arguments), tuple(lines), result, _place(free, assigned, lines))


def _place(free: set[str], assigned: set[str], lines: Sequence[str]) -> str:
    if assigned & {"h", "y"}:
        return "forward"
    if "loss" in assigned:
        return "loss"
    if "loss_fn" in assigned:
        return "criterion"
    if "x" in assigned:
        return "batch"
    if any("before optimizer.step()" in line for line in lines):
        return "step"
    return "optimizer" if "optimizer" in free or ONCE in assigned else "start"


def _list_assigned(node: ast.AST) -> set[str]:
    """Names that a statement assigns, in a block inside it too, but not in a function."""
    if isinstance(node, (ast.FunctionDef, ast.For)):
        return set()
    if isinstance(node, ast.With):
        return {word for inner in node.body for word in _list_assigned(inner)}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def _find_free(tree: ast.Module, lines: Sequence[str]) -> set[str]:
    """Names that the lines, as a function's body, read of somebody else."""
    body = "\n".join(["def body():", *(f"    {line}" for line in lines)])
    [table] = symtable.symtable(body, "body", "exec").get_children()
    return {w for w in _list_globals(table) if w not in KNOWN} | _find_changed(tree)


def _list_globals(table: symtable.SymbolTable) -> set[str]:
    own = {s.get_name() for s in table.get_symbols() if s.is_global()}
    return own.union(*map(_list_globals, table.get_children()))


def _find_changed(tree: ast.Module) -> set[str]:
    """Names of the user that are read to be assigned, as in `x = x / 255`."""
    found: set[str] = set()
    known: set[str] = set()
    for node in tree.body:
        read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assigned = _list_assigned(node)
        found |= (read & assigned & set(INPUTS)) - known
        known |= assigned
    return found


def _write_order(parts: Iterable[ScriptPart]) -> list[str]:
    """How the functions are called, as a comment."""
    calls = [
        f"# {part.result + ' = ' if part.result else ''}{part.name}({', '.join(part.arguments)})"
        f"  # {PLACES[part.place]}"
        for place in PLACES
        for part in parts
        if part.place == place
    ]
    return ["\n".join(["# in your training script:", *calls])] if calls else []
