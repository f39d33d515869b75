"""From a module's name to its class: one of the blocks, a class of torch.nn, or any dotted path.

Notable: there is no registration, and nothing is called; a path must end at a subclass of `nn.Module`.
"""

from __future__ import annotations

import importlib
import inspect

from torch import nn

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks import blocks


def module_class(name: str) -> type[nn.Module]:
    """The class that a row names; ValueError with the nearest name, TypeError if it is not a module."""
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
        found = _import_class(path, leaf)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is not a subclass of torch.nn.Module, so it cannot be a layer")
    return found


def _import_class(path: str, leaf: str) -> object:
    try:
        file = importlib.import_module(path)
    except ImportError as error:
        raise ValueError(
            f"{path}.{leaf}: {path} cannot be imported ({error}); is it on the Python path?"
        ) from error
    if not hasattr(file, leaf):
        raise ValueError(f"{path} has no {leaf!r}{suggest(leaf, vars(file))}")
    return getattr(file, leaf)
