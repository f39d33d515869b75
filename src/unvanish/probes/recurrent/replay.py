"""Fused recurrent layers, replayed step by step: the gradient that reaches the state of every time step.

Notable:
- `nn.RNN`, `nn.LSTM` and `nn.GRU` are one node of the autograd graph; their weights, their input and the
  cotangent of their output are enough to run them again in float64, equal to the fused result. With their
  output, which holds every state, all steps of the forward are computed at once.
- The forward is in `unroll`, the way back in `carry`; all layouts of a batch become one, see `layout`.
- Dropout between layers counts as off. Nothing here touches the module, the global RNG or the autograd graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unvanish.probes.recurrent.carry import carry_back
from unvanish.probes.recurrent.draws import draw_cotangents, new_generator
from unvanish.probes.recurrent.profile import Profile
from unvanish.probes.recurrent.scaled import Scaled, add, bound
from unvanish.probes.recurrent.unroll import unroll_layers


@torch.no_grad()
def replay(
    module: nn.Module,
    inputs: tuple[Any, ...],
    grad_output: Any,
    grad_state: Any,
    *,
    result: Any = None,
    probes: int = 4,
    seed: int = 0,
) -> list[Profile]:
    """The gradient at every time step of a fused recurrent layer, one profile per layer and direction.

    `inputs` are the module's arguments (x, hx=None) in any layout it takes; `grad_output` is dL/d(output) in
    the output's layout (a PackedSequence or its data), `grad_state` dL/d(h_n), or a pair for an LSTM; None is
    zero. `result` is the output the module gave: with it the last layer is followed along the states that the
    module went through, which in chaos are not those of float64, and its forward needs no loop. Profiles come
    by layer, the forward direction first. TypeError for another module, ValueError for shapes that do not fit
    and for `probes` < 1.
    """
    found, _ = sweep(
        module, inputs, grad_output, grad_state, result=result, probes=probes, seed=seed, inwards=False
    )
    return found


@torch.no_grad()
def sweep(
    module: nn.Module,
    inputs: tuple[Any, ...],
    grad_output: Any,
    grad_state: Any,
    *,
    result: Any = None,
    probes: int = 4,
    seed: int = 0,
    inwards: bool = True,
) -> tuple[list[Profile], Scaled]:
    """`replay`, and the gradient of the input as rows (N, D) that cannot underflow.

    `inwards=False`: the gradient of the first layer's input is not computed, and is zeros.
    """
    if probes < 1:
        raise ValueError(f"probes is {probes}, expected at least 1")
    stack = list(unroll_layers(module, inputs, result))
    layout = stack[0][0].layout
    cells = [run.cell for runs in stack for run in runs]
    ends = layout.states(grad_state, cells)
    shape = (sum(layout.sizes), len(stack[0]) * cells[0].out)
    rows = ends[0].new_zeros(shape) if grad_output is None else layout.rows(grad_output)
    if rows.shape != shape:
        raise ValueError(f"grad_output has {tuple(rows.shape)} (rows, features), expected {shape}")
    generator = new_generator(seed)
    profiles: list[Profile] = []
    above = bound(rows)
    while stack:
        runs = stack.pop()
        parts = above.value.chunk(len(runs), -1)
        last = ends[-len(runs) :]
        del ends[-len(runs) :]
        done = [
            carry_back(
                run,
                Scaled(part, above.exponent),
                end,
                draw_cotangents(probes, end, generator),
                inwards or run.layer > 0,
            )
            for run, part, end in zip(runs, parts, last, strict=True)
        ]
        profiles[:0] = [profile for profile, _ in done]
        above = done[0][1] if len(done) == 1 else add(done[0][1], done[1][1])
    return profiles, above


@torch.no_grad()
def replay_output(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """What `module(*inputs)` returns, computed by the float64 replay (dropout off)."""
    stack = list(unroll_layers(module, inputs))
    runs = [run for level in stack for run in level]
    out = runs[0].cell.out
    rows = torch.cat([run.states[:, :out] for run in stack[-1]], -1)
    layout = runs[0].layout
    return layout.sequence(rows), layout.state([run.last for run in runs], out)
