"""The layers of a Keras model, which keeps them beside torch's registry of modules, by their own names.

Notable: torch's hooks hear of their calls all the same. Without names for them an operation would be at "the
model", and all weights would be those of one module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

LIBRARY = "keras"


def name_modules(model: nn.Module, remove_duplicate: bool = True) -> list[tuple[str, nn.Module]]:
    """The modules of a model with their paths, as torch has them, then the layers that it does not know."""
    named = list(model.named_modules(remove_duplicate=remove_duplicate))
    if not is_layer(model):
        return named
    named = [(path, module) for path, module in named if "_functional" not in path.split(".")]
    known = {id(module) for _, module in named}
    return [*named, *_list_layers(model, "", known)]


def is_layer(module: Any) -> bool:
    """Whether a module is a layer or a model of Keras."""
    return any(kind.__module__.partition(".")[0] == LIBRARY for kind in type(module).__mro__)


def _list_layers(module: Any, path: str, known: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """The layers below a module that are not known, and what torch knows below them."""
    for layer in getattr(module, "layers", ()):
        if not isinstance(layer, nn.Module) or id(layer) in known:
            continue
        name = f"{path}.{layer.name}" if path else str(layer.name)
        for below, inner in layer.named_modules():
            if id(inner) not in known and "_functional" not in below.split("."):
                known.add(id(inner))
                yield (f"{name}.{below}" if below else name), inner
        yield from _list_layers(layer, name, known)


def name_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model by name, as torch has them; those of layers by the innermost one."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    if not is_layer(model):
        return named
    layers = [(f"{path}." if path else "", m) for path, m in name_modules(model) if is_layer(m)]
    names: dict[int, str] = {}
    for path, layer in sorted(layers, key=lambda found: found[0].count(".")):
        known: Any = layer
        leaves = Counter(v.name for v in known.variables)
        for v in known.variables:
            names[id(v.value)] = path + (v.name if leaves[v.name] == 1 else v.path.replace("/", "."))
    return {names.get(id(p), name): p for name, p in named.items()}


def list_parameters(
    model: nn.Module, modules: Sequence[tuple[str, nn.Module]]
) -> list[tuple[str, Tensor, str, nn.Module]]:
    """Name, parameter, path and module, once for each module that holds it; a layer's, once."""
    if not is_layer(model):
        return [
            (f"{path}.{name}" if path else name, p, path, module)
            for path, module in modules
            for name, p in module._parameters.items()
            if p is not None
        ]
    homes = dict(modules)
    places = [(name, p, name.rpartition(".")[0]) for name, p in name_parameters(model).items()]
    return [(name, p, path, homes.get(path, model)) for name, p, path in places]


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The module at a path, a layer included; AttributeError if there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        found = dict(name_modules(model)).get(path) if is_layer(model) else None
        if found is None:
            raise
        return found
