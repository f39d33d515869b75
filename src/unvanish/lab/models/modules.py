"""From a module's name to its class: a block of ours, a class of torch.nn, or any dotted path.

Notable: nothing is registered and nothing is called; a path must end at a subclass of `nn.Module`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import lru_cache

from torch import nn

from unvanish.core.registry import suggest


@lru_cache(maxsize=1)
def blocks() -> dict[str, type[nn.Module]]:
    """Every block that comes along, by its class name; found by being there."""
    import unvanish.lab.models.blocks as folder

    found: dict[str, type[nn.Module]] = {}
    for info in sorted(pkgutil.iter_modules(folder.__path__), key=lambda info: info.name):
        if not info.name.startswith("_"):
            file = importlib.import_module(f"{folder.__name__}.{info.name}")
            found |= {name: c for name, c in vars(file).items() if _is_block(c, file.__name__)}
    return found


def module_class(name: str) -> type[nn.Module]:
    """The class a row names; ValueError says what there is near, TypeError that it is no module."""
    if name in blocks():
        return blocks()[name]
    path, _, leaf = name.rpartition(".")
    if path in ("", "nn", "torch.nn"):
        found = getattr(nn, leaf, None)
        if found is None:
            known = [*blocks(), *(f"nn.{n}" for n, c in vars(nn).items() if inspect.isclass(c))]
            raise ValueError(
                f"no module {name!r}{suggest(name, known)}; it is the name of a block "
                f"({', '.join(blocks())}), a class of torch.nn, or a path such as mypackage.blocks.Mine"
            )
    else:
        found = _imported(path, leaf)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is no subclass of torch.nn.Module, so it cannot be a layer")
    return found


def _imported(path: str, leaf: str) -> object:
    try:
        file = importlib.import_module(path)
    except ImportError as error:
        raise ValueError(
            f"{path}.{leaf}: {path} cannot be imported ({error}); is it on the Python path?"
        ) from error
    if not hasattr(file, leaf):
        raise ValueError(f"{path} has no {leaf!r}{suggest(leaf, vars(file))}")
    return getattr(file, leaf)


def _is_block(candidate: object, home: str) -> bool:
    return (
        inspect.isclass(candidate)
        and issubclass(candidate, nn.Module)
        and candidate.__module__ == home
        and not candidate.__name__.startswith("_")
    )
