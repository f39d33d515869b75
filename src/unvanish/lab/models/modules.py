"""From a module's name to its class: one of the blocks, a class of torch.nn, or any dotted path.

Notable:
- There is no registration, and nothing is called; a path must end at a subclass of `nn.Module`.
- A path imports code of somebody's, so it needs the reader's word for it: `allow_code`.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache

from torch import nn

from unvanish.core.registry import suggest
from unvanish.lab.models.backbones import LIBRARIES, backbone_class, is_backbone
from unvanish.lab.models.blocks import blocks

ALLOW = "allow_code=True, or --allow-code (allow_code=true for train, val, predict, export)"


ELSEWHERE = {
    "Pose": "poses", "OBB": "oriented boxes", "v10Detect": "a head without suppression",
    "RTDETRDecoder": "a decoder of queries", "WorldDetect": "a head for words",
    "YOLOEDetect": "a head for words", "YOLOESegment": "a head for words",
}  # fmt: skip  # heads of networks that we do not have
CLASSIC = {"Bottleneck": "CrossBottleneck"}  # what a name means in a file with backbone and head


def module_class(name: str, allow_code: bool = False, classic: bool = False) -> type[nn.Module]:
    """The class that a row names; ValueError with the nearest name, TypeError if it is not a module.

    `classic`: in a file with backbone and head. A path is imported only if `allow_code`; else the ValueError
    says what it would import.
    """
    name = CLASSIC.get(name, name) if classic else name
    if name in blocks():
        return blocks()[name]
    if is_backbone(name):
        kind, _, inner = name.partition(":")
        if not allow_code:
            library = LIBRARIES[kind]
            raise ValueError(f"{name} would run code of the library {library}; if you trust it, give {ALLOW}")
        return backbone_class(kind, inner)
    if name in ELSEWHERE:
        raise ValueError(
            f"{name}, {ELSEWHERE[name]}, is not there; the heads are Detect, Segment and Classify"
        )
    path, _, leaf = name.rpartition(".")
    if path in ("", "nn", "torch.nn"):
        if leaf not in torch_modules():
            known = [*blocks(), *(f"nn.{n}" for n in torch_modules())]
            raise ValueError(
                f"no module {name!r}{suggest(name, known)}; it is the name of a block "
                f"({', '.join(blocks())}), a class of torch.nn, or a path such as mypackage.blocks.Mine"
            )
        return torch_modules()[leaf]
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"{name!r} is not the name of a block, a class of torch.nn, or a dotted path")
    if not allow_code:
        raise ValueError(
            f"{name} would import the Python module {path!r} and run its code; if you trust it, give {ALLOW}"
        )
    found = _import_class(path, leaf)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is not a subclass of torch.nn.Module, so it cannot be a layer")
    return found


@cache
def torch_modules() -> dict[str, type[nn.Module]]:
    """The modules of torch.nn by name."""
    return {n: c for n, c in vars(nn).items() if inspect.isclass(c) and issubclass(c, nn.Module)}


def _import_class(path: str, leaf: str) -> object:
    try:
        file = importlib.import_module(path)
    except Exception as error:
        raise ValueError(
            f"{path}.{leaf}: {path} cannot be imported ({error}); is it on the Python path?"
        ) from error
    if not hasattr(file, leaf):
        raise ValueError(f"{path} has no {leaf!r}{suggest(leaf, vars(file))}")
    return getattr(file, leaf)
