"""Recurrent modules as the theory reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from unvanish.probes.measures import see
from unvanish.theory import recurrent
from unvanish.theory.recurrent import MeanFieldCell


def cell_of(module: nn.RNNBase, weights: Mapping[str, Tensor | None], layer: int) -> MeanFieldCell:
    """One layer of a recurrent module, forward direction; of unknown weights, as PyTorch draws them."""
    kind = "rnn" if module.mode.startswith("RNN") else module.mode.lower()
    hidden, activation = module.hidden_size, str(getattr(module, "nonlinearity", "tanh"))
    w_in, w_rec = weights.get(f"weight_ih_l{layer}"), weights.get(f"weight_hh_l{layer}")
    if w_in is None or w_rec is None or w_in.is_meta or module.proj_size:
        inputs = module.input_size if layer == 0 else hidden
        return recurrent.default_cell(kind, hidden, inputs, activation=activation)
    names = recurrent.GATES[kind]
    b_in, b_rec = (_by_gate(weights.get(f"{b}_l{layer}"), names, hidden) for b in ("bias_ih", "bias_hh"))
    entering = {g: (w**2).sum(1) for g, w in _by_gate(w_in, names, hidden).items()}
    outer = {g: b_in[g] + (0.0 if kind == "gru" and g == "n" else b_rec[g]) for g in names}
    inner = b_rec["n"] if kind == "gru" else np.zeros(hidden)
    return MeanFieldCell(kind, _by_gate(w_rec, names, hidden), entering, outer, activation, inner)


def _by_gate(x: Tensor | None, names: tuple[str, ...], hidden: int) -> dict[str, Any]:
    """A weight or bias cut into its gates; zeros (hidden,) if there is none."""
    if x is None:
        return {g: np.zeros(hidden) for g in names}
    whole = see(x.double().cpu())
    return {g: whole[k * hidden : (k + 1) * hidden] for k, g in enumerate(names)}
