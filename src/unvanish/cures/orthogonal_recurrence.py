"""Makes recurrent matrices keep the norm: orthogonal, or the identity for a ReLU.

What it does

Each gate's recurrent matrix of an RNN, LSTM or GRU (fused, or a cell in a loop) becomes orthogonal times
`gain`; for ReLU the identity (IRNN), since a ReLU halves what any other rotation keeps. In a hand-written
cell the square Linear layers are used. Recurrent biases become zero. A random Gaussian matrix has singular
values from 0 to 2, so its powers stretch a few directions and lose the others.

Safety

It changes the function: for untrained models.

References: Saxe et al. 2014; Le et al. 2015 (IRNN); Arjovsky et al. 2016.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures.chrono_bias import example
from unvanish.cures.reinitialise import bias_of, orthogonal_matrix
from unvanish.surgery.names import full_name, split_label
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.recurrent import CELLS, FUSED, recurrent_modules, write_cells
from unvanish.surgery.surgery import Surgery, descendants

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The recurrences named; a hand-written cell with a ReLU gets the identity."""
    inside = [
        trace.sites[i].kind
        for i in trace.where("node")
        if any(trace.sites[i].path.startswith(split_label(t)[0]) for t in remedy.targets)
    ]
    settings = {"identity": True} if "relu" in inside else {}
    yield replace(remedy, parameters=settings, safety="retrain")


def apply(
    surgery: Surgery, targets: tuple[str, ...], *, gain: float = 1.0, identity: bool | None = None
) -> None:
    """Make the recurrences at `targets` orthogonal; `identity` forces or forbids the identity matrix."""
    try:
        modules = recurrent_modules(surgery, targets)
    except SurgeryError:
        change_handwritten_cells(surgery, targets, gain, bool(identity))
        return
    for path, module in modules.items():
        assert isinstance(module, FUSED + CELLS)
        relu = getattr(module, "nonlinearity", "tanh") == "relu" if identity is None else identity
        for name, p in list(module.named_parameters(recurse=False)):
            if name.startswith("weight_hh"):
                blocks = [
                    recurrent_matrix(surgery, b, gain, relu)
                    for b in torch.split(p.detach(), int(module.hidden_size))
                ]
                surgery.fill(
                    full_name(path, name),
                    torch.cat(blocks),
                    "identity" if relu else f"orthogonal, gain {gain:g}",
                )
            elif name.startswith("bias_hh") and not isinstance(
                module, (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)
            ):
                surgery.fill(full_name(path, name), 0.0, "zero")


def change_handwritten_cells(surgery: Surgery, targets: tuple[str, ...], gain: float, identity: bool) -> None:
    """Make the square linear layers of hand-written cells orthogonal."""
    done = 0
    for target in targets:
        path = split_label(target)[0].replace("(model)", "")
        for name, module in descendants(surgery.model, path) if surgery.has(path) else ():
            if isinstance(module, nn.Linear) and module.in_features == module.out_features:
                weight = full_name(name, "weight")
                surgery.fill(
                    weight,
                    recurrent_matrix(surgery, module.weight, gain, identity),
                    f"orthogonal, gain {gain:g}",
                )
                bias = bias_of(surgery, weight)
                if bias:
                    surgery.fill(bias, 0.0, "zero")
                done += 1
    if not done:
        raise SurgeryError(
            f"orthogonal-recurrence: {', '.join(targets)} contains no recurrent or square linear layer"
        )


def recurrent_matrix(surgery: Surgery, like: Tensor, gain: float, identity: bool) -> Tensor:
    """An orthogonal matrix or the identity, (rows, columns), in the dtype of `like`."""
    made = torch.eye(*like.shape) if identity else orthogonal_matrix(surgery, *like.shape)
    return (gain * made).to(like)


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    gain = remedy.parameters.get("gain", 1.0)
    lines = write_cells(
        remedy.targets,
        "for name, p in cell.named_parameters(recurse=False):",
        "    square = name == 'weight' and p.ndim == 2 and p.shape[0] == p.shape[1]  # a cell of your own",
        "    for w in p.data.split(p.shape[-1]) if name.startswith('weight_hh') or square else ():",
        f"        nn.init.orthogonal_(w, {gain:g})",
        "    if name.startswith('bias_hh') and isinstance(cell, (nn.RNN, nn.RNNCell)):",
        "        nn.init.zeros_(p)",
    )
    if remedy.parameters.get("identity"):
        lines = [line.replace(f"orthogonal_(w, {gain:g})", "eye_(w)") for line in lines]
    return lines


def case() -> tuple[Case, Remedy]:
    """PyTorch's default tanh RNN."""
    return example(nn.RNN), Remedy("orthogonal-recurrence", ("core",), "a matrix that keeps the norm")
