"""Chrono initialisation: sets gate biases for a memory as long as the sequences.

What it does

LSTM: forget biases ln U(1, T - 1), input biases their negatives; GRU: the update gate's biases ln U(1, T -
1). Each unit then forgets over its own time, between 1 and T steps. PyTorch adds two biases; one is set, the
other is zero. For T = 400 the half-life goes from 1.7 steps to 186.

Safety

It changes the function: for untrained models.

Reference: Tallec and Ollivier 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn

from unvanish.core.diagnosis import Case, Remedy
from unvanish.core.trace import Trace
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.recurrent import GRU, LSTM, recurrent_modules, set_gate_biases, write_gates
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def plan(trace: Trace, remedy: Remedy) -> Iterable[Remedy]:
    """The modules of the recurrences, and the steps of the longest one."""
    steps = [
        (str(trace.sites[i].facts["of"]), int(trace.sites[i].facts.get("steps", 0)))
        for i in trace.where("step")
    ]
    longest = max((n for _, n in steps), default=0)
    names = remedy.targets or tuple(dict.fromkeys(name for name, _ in steps))
    if longest > 2 and names:
        yield replace(remedy, targets=names, parameters={"steps": longest}, safety="retrain")


def apply(surgery: Surgery, targets: tuple[str, ...], *, steps: int = 100) -> None:
    """Set the gates of every LSTM and GRU at `targets` for sequences of `steps` steps."""
    if steps < 3:
        raise SurgeryError(f"chrono-bias: steps is {steps}, expected at least 3")
    done = 0
    for path, module in recurrent_modules(surgery, targets).items():
        size = int(module.hidden_size)  # type: ignore[arg-type]
        uniform = torch.rand(size, generator=surgery.generator)
        long = torch.log(1 + uniform * (steps - 2))
        if isinstance(module, LSTM):
            set_gate_biases(surgery, path, module, {0: -long, 1: long}, f"chrono for {steps} steps")
            done += 1
        elif isinstance(module, GRU):
            set_gate_biases(surgery, path, module, {1: long}, f"chrono for {steps} steps")
            done += 1
    if not done:
        raise SurgeryError("chrono-bias: a plain RNN has no gates; use replace-cell first")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    steps = remedy.parameters.get("steps", 100)
    return write_gates(
        remedy.targets,
        f"b = torch.log(1 + torch.rand(size) * {steps - 2})  # for sequences of {steps} steps",
        "p.data[size : 2 * size] = 0 if '_hh' in name else b",
        "if isinstance(cell, (nn.LSTM, nn.LSTMCell)):",
        "    p.data[:size] = 0 if '_hh' in name else -b",
    )


class Last(nn.Module):
    """A recurrent core whose last step is read out."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core, self.head = core, nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.core(x)[0][:, -1])  # type: ignore[no-any-return]


def example(kind: Callable[..., nn.RNNBase] = nn.LSTM) -> Case:
    """A recurrent net over 40 steps."""
    torch.manual_seed(0)
    return Case(
        Last(kind(4, 16, batch_first=True)),
        (torch.randn(8, 40, 4), torch.randint(0, 3, (8,))),
        nn.CrossEntropyLoss(),
    )


def case() -> tuple[Case, Remedy]:
    """PyTorch's default LSTM over 40 steps."""
    return example(), Remedy(
        "chrono-bias", ("core",), "memory as long as the sequence", "retrain", {"steps": 40}
    )
