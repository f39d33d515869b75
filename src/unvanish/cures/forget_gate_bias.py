"""Starts the forget gate open: bias 1 (or more) for LSTM, the update gate's bias for GRU.

What it does

At bias 0 an LSTM halves its cell at every step; at bias 1 it keeps 73 %, at bias 4 98 %. If the length of the
dependencies is known, use `chrono-bias`.

Safety

It changes the function: for untrained models.

References: Gers et al. 2000; Jozefowicz et al. 2015.
"""

from __future__ import annotations

from unvanish.core.diagnosis import Case, Remedy
from unvanish.cures.chrono_bias import example
from unvanish.surgery.receipt import SurgeryError
from unvanish.surgery.recurrent import GRU, LSTM, recurrent_modules, set_gate_biases, write_gates
from unvanish.surgery.surgery import Surgery

SAFETY = "retrain"


def apply(surgery: Surgery, targets: tuple[str, ...], *, bias: float = 1.0) -> None:
    """Set the bias of the forget (LSTM) or update (GRU) gates at `targets`."""
    gated = {p: m for p, m in recurrent_modules(surgery, targets).items() if isinstance(m, LSTM + GRU)}
    if not gated:
        raise SurgeryError("forget-gate-bias: a plain RNN has no gates; use replace-cell first")
    for path, module in gated.items():
        set_gate_biases(surgery, path, module, {1: bias}, f"gate bias {bias:g}")


def code(remedy: Remedy) -> list[str]:
    """The lines of PyTorch."""
    bias = remedy.parameters.get("bias", 1.0)
    return write_gates(remedy.targets, "", f"p.data[size : 2 * size] = 0 if '_hh' in name else {bias:g}")


def case() -> tuple[Case, Remedy]:
    """PyTorch's default LSTM."""
    return example(), Remedy("forget-gate-bias", ("core",), "an open gate", "retrain", {"bias": 2.0})
