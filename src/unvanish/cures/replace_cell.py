"""Replaces a plain RNN by a GRU or LSTM with the same interface.

What it does

`nn.RNN` becomes `nn.GRU`, which has the same inputs and outputs, or an LSTM wrapped to have them (its cell
state stays inside; `hx` is the hidden state alone). `nn.RNNCell` becomes `nn.GRUCell`. Layers, directions,
batch_first, dropout and biases are kept. With `steps` the gates are opened for sequences of that length
(chrono).

Safety

It changes the function and its parameters: for untrained models.

References: Hochreiter and Schmidhuber 1997; Cho et al. 2014.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.cures import chrono_bias
from unvanish.cures.chrono_bias import example
from unvanish.cures.orthogonal_recurrence import recurrent_matrix
from unvanish.surgery.names import list_names
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.recurrent import name_module, recurrent_modules
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


class HiddenLSTM(nn.Module):
    """An LSTM with `nn.RNN`'s interface: `hx` and h_n are hidden states alone, the cell starts at zero."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(**options)
        self.input_size, self.hidden_size = self.lstm.input_size, self.lstm.hidden_size
        self.num_layers, self.bidirectional = self.lstm.num_layers, self.lstm.bidirectional
        self.batch_first = self.lstm.batch_first

    def forward(self, x: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        out, (h, _) = self.lstm(x, None if hx is None else (hx, torch.zeros_like(hx)))
        return out, h

    def flatten_parameters(self) -> None:
        """As `nn.RNN` has it."""
        self.lstm.flatten_parameters()


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The recurrences named, over as many steps as the longest has."""
    steps = max((int(trace.sites[i].facts.get("steps", 0)) for i in trace.where("step")), default=0)
    to = remedy.parameters.get("to", "gru")
    yield replace(remedy, parameters={"to": to, "steps": steps if steps > 2 else 0}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, to: str = "gru", steps: int = 0) -> None:
    """Replace every plain RNN at `targets`."""
    if to not in ("gru", "lstm"):
        raise SurgeryError(f"replace-cell: no cell {to!r}; use 'gru' or 'lstm'")
    plain = {
        p: m for p, m in recurrent_modules(surgery, targets).items() if isinstance(m, (nn.RNN, nn.RNNCell))
    }
    if not plain:
        raise SurgeryError(
            f"replace-cell: {', '.join(targets)} contains no plain RNN; its cells are already gated"
        )
    for path, old in plain.items():
        new = build_cell(old, to)
        device, dtype = surgery.like(path)
        new = new.to(device, dtype)
        _draw(surgery, new)
        surgery.swap(path, new, f"{type(old).__name__} becomes {type(new).__name__}")
    if steps > 2:
        chrono_bias.apply(surgery, tuple(plain), steps=steps)


def build_cell(old: nn.Module, to: str) -> nn.Module:
    """The new cell, of the old one's sizes."""
    if isinstance(old, nn.RNNCell):
        return nn.GRUCell(old.input_size, old.hidden_size, old.bias)
    assert isinstance(old, nn.RNN)
    options = {
        "input_size": old.input_size, "hidden_size": old.hidden_size, "num_layers": old.num_layers,
        "bias": old.bias, "batch_first": old.batch_first, "dropout": old.dropout,
        "bidirectional": old.bidirectional,
    }  # fmt: skip
    return nn.GRU(**options) if to == "gru" else HiddenLSTM(**options)


@torch.no_grad()
def _draw(surgery: Surgery, new: nn.Module) -> None:
    """PyTorch's own sizes from the surgery's generator; recurrent matrices orthogonal, gate by gate."""
    for name, p in new.named_parameters():
        leaf = name.rpartition(".")[2]
        size = int(getattr(new, "hidden_size", 1))
        if leaf.startswith("weight_hh"):
            p.copy_(torch.cat([recurrent_matrix(surgery, b, 1.0, False) for b in torch.split(p, size)]))
        elif p.ndim > 1:
            p.copy_(surgery.normal(p) / p.shape[1] ** 0.5)
        else:
            p.zero_()


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    to = str(remedy.parameters.get("to", "gru")).upper()
    to = to if to in ("GRU", "LSTM") else "GRU"
    names = [name for target in remedy.targets if (name := name_module(target))]
    keys = "('input_size', 'hidden_size', 'num_layers', 'bias', 'batch_first', 'dropout', 'bidirectional')"
    steps = remedy.parameters.get("steps", 0)
    gates = chrono_bias.code(replace(remedy, parameters={"steps": steps})) if steps > 2 else []
    return [
        f"for name in {list_names(names)}:  # an LSTM gives (h, c) in place of h",
        "    old = model.get_submodule(name)",
        f"    new = nn.{to}(**{{key: getattr(old, key) for key in {keys}}})",
        "    model.set_submodule(name, new)",
        *gates,
    ]


def case() -> tuple[Case, Remedy]:
    """PyTorch's default tanh RNN over 40 steps."""
    return example(nn.RNN), Remedy(
        "replace-cell",
        ("core",),
        "a state carried past the nonlinearity",
        "retrain",
        {"to": "lstm", "steps": 40},
    )
