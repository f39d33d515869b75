"""Inserts a normalisation after a layer (or before it), so that what follows reads inputs of size one.

What it does

`kind`: "batch", "layer", "rms" or "group"; images get BatchNorm2d, or GroupNorm with one group for "layer".
It is registered on its layer, so all other names stay. `exact` (BatchNorm only) sets its scale to the
deviation and its shift to the mean of one batch, so that the network computes the same as before; training
then moves both.

Safety

`retrain`, and `exact` with `exact: true` on the batch it was calibrated with. Batch statistics in a deep
stack without skips make the gradient explode by 0.19 nats a layer; LayerNorm does not couple the samples.

References: Ioffe and Szegedy 2015; Ba et al. 2016; Zhang and Sennrich 2019; Wu and He 2018.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.reinitialise import EVERYWHERE
from unvanish.probes import calls
from unvanish.surgery import norms
from unvanish.surgery.anatomy import Anatomy
from unvanish.surgery.grafts import First, Then
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """After the finding's layers, or all that feed an activation; before a named output layer."""
    anatomy = Anatomy(trace)
    layers = anatomy.before(remedy.targets)
    settings = {"kind": remedy.parameters.get("kind", "layer")}
    if layers and all(x.head for x in layers):
        yield replace(remedy, targets=(layers[-1].module,), parameters={"kind": "layer", "place": "before"})
        return
    if not layers or len(remedy.targets) >= EVERYWHERE:
        layers = [x for x in anatomy.layers if x.activation]
    wanted = tuple(dict.fromkeys(x.module for x in layers if not x.normalised and not x.head))
    if wanted:
        yield replace(remedy, targets=wanted, parameters=settings)


def apply(
    surgery: Surgery,
    targets: tuple[str, ...],
    *,
    kind: str = "layer",
    place: str = "after",
    groups: int = 8,
    exact: bool = False,
) -> None:
    """Put a normalisation `place` ("after" or "before") every module of `targets`."""
    if place not in ("after", "before"):
        raise SurgeryError(f"insert-normalisation: place is {place!r}, use 'after' or 'before'")
    if exact and (kind != "batch" or place != "after"):
        raise SurgeryError("insert-normalisation: only a BatchNorm after a layer can be inserted exactly")
    seen = record_outputs(surgery, targets) if exact else {}
    for path in targets:
        layer = surgery.module(path)
        if place == "before":
            new: nn.Module = nn.LayerNorm(input_features(layer))
        else:
            new = norms.norm(layer, kind, groups)
        name = surgery.register(path, "norm", new)
        if exact:
            norms.calibrate(new, seen[path])
        surgery.graft(
            path, Then(new) if place == "after" else First(new), f"{type(new).__name__} {place} it ({name})"
        )


def input_features(layer: nn.Module) -> int:
    """How many features a linear layer reads."""
    found = getattr(layer, "in_features", None)
    if found is None:
        raise SurgeryError(f"a normalisation before a {type(layer).__name__} is not supported; use 'after'")
    return int(found)


def record_outputs(surgery: Surgery, paths: Iterable[str]) -> dict[str, Tensor]:
    """The outputs of some modules on the surgery's batch, in the model's own mode."""
    if surgery.batch is None:
        raise SurgeryError("insert-normalisation: `exact` needs a batch; pass one: apply(..., batch=batch)")
    from unvanish.probes.intact import intact

    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[path] = output.detach()

        return hook

    call = calls.prepare(surgery.batch, surgery.loss, gradients=False)
    with intact(surgery.model, surgery.batch) as kept, kept, torch.no_grad():
        handles = [surgery.module(path).register_forward_hook(keep(path)) for path in paths]
        try:
            call.run(surgery.model)
        finally:
            for handle in handles:
                handle.remove()
    return found


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    kind, place = remedy.parameters.get("kind", "layer"), remedy.parameters.get("place", "after")
    made = {
        "batch": "getattr(nn, f'BatchNorm{max(1, layer.weight.ndim - 2)}d')(size)",
        "layer": "nn.LayerNorm(size) if layer.weight.ndim == 2 else nn.GroupNorm(1, size)",
        "rms": "nn.RMSNorm(size) if layer.weight.ndim == 2 else nn.GroupNorm(1, size)",
        "group": "nn.GroupNorm(next(g for g in range(8, 0, -1) if size % g == 0), size)",
    }[kind]
    if place == "before":
        lines = [
            "layer.norm = nn.LayerNorm(layer.in_features)",
            "layer.register_forward_pre_hook(lambda layer, args: (layer.norm(args[0]), *args[1:]))",
        ]
    else:
        lines = [
            "size = layer.weight.shape[0]",
            f"layer.norm = {made}",
            "layer.register_forward_hook(lambda layer, args, out: layer.norm(out))",
        ]
    return [
        f"for name in {list_names(remedy.targets)}:  # before the optimizer is made",
        "    layer = model.get_submodule(name)",
        *[f"    {line}" for line in lines],
    ]


def case() -> tuple[Case, Remedy]:
    """A small CNN whose first layers get a BatchNorm that changes nothing yet."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    )
    batch = torch.randn(8, 3, 8, 8), torch.randint(0, 3, (8,))
    settings = {"kind": "batch", "exact": True}
    return Case(net, batch, nn.CrossEntropyLoss()), Remedy(
        "insert-normalisation", ("0", "2"), "size one", "exact", settings
    )
