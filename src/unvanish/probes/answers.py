"""Whether a sequence model sees the answers that it is asked for: targets that are its own input, moved.

Notable:
- Which output of which position meets which target is read from the gradient of the loss at the output, so a
  loss that cuts off the first or the last positions, or flattens them, is followed.
- Only if the targets are the input, moved by a step or not at all, is it asked which positions of the input
  the output of one position depends on. Where the nodes of the graph tell that a step sees none ahead of it
  (`probes.ahead`), that is all; else one more backward is made, from that output.
- A model that shifts its input itself does not see the answer though the targets are the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unvanish.core.loss_facts import AnswerFacts
from unvanish.probes import calls
from unvanish.probes.ahead import Steps
from unvanish.probes.fit import IGNORED
from unvanish.probes.measures import see
from unvanish.probes.passes import ForwardPass
from unvanish.probes.saved import find_saved

SHIFTS = (-1, 0, 1, 2)  # steps between an output and its target in the input
ENOUGH = 32  # targets that are compared
KINDS = 3  # of values, at least: a constant sequence is the same however it is moved
LEAST = 1e-6  # of the largest gradient: less would be no dependence worth a word
SHORT = 4  # steps


def find_answer(forward: ForwardPass) -> AnswerFacts | None:
    """How far the targets are moved against the input, and what the output sees; None if they are others."""
    every = [x for x in forward.call.originals.values() if x.layout is torch.strided]
    given = [x for x in every if x.ndim >= 2 and max(x.shape[:2]) >= SHORT]
    outputs = [t for t in calls.predictions(forward.output) if t.requires_grad and t.is_floating_point()]
    if not given or not outputs or not any(_may_match(x, forward) for x in given):
        return None
    found: list[AnswerFacts] = []
    gradients = [
        torch.autograd.grad(forward.root, [o], retain_graph=True, allow_unused=True)[0] for o in outputs
    ]
    for y, ignored in _list_targets(forward):
        for output, gradient in zip(outputs, gradients, strict=True):
            for x in given if gradient is not None else ():
                facts = _judge(x, y, ignored, output, gradient, forward)
                if facts is None and x.shape[0] >= SHORT and x.shape[0] != x.shape[1]:
                    facts = _judge(x, y, ignored, output, gradient, forward, turned=True)
                found += [] if facts is None else [facts]
    usual = [f for f in found if f["shift"] == 1]
    return next(iter(usual or found), None)


def _may_match(x: Tensor, forward: ForwardPass) -> bool:
    """Whether targets are of the kind and about the size of an input, and most of a sample's are in it."""
    return any(
        y.is_floating_point() == x.is_floating_point()
        and 2 * y.numel() > x.numel()
        and any(_are_within(x, y, ignored, turned) for turned in (False, True))
        for y, ignored in _list_targets(forward)
    )


def _are_within(x: Tensor, y: Tensor, ignored: int, turned: bool) -> bool:
    """Whether the targets of the first sample, but for those that a shift moves out, are among its steps."""
    n, size = x.shape[1 if turned else 0], x.shape[2:].numel()
    if not y.numel() or y.numel() % (n * size):
        return False
    own, asked = (x[:, 0], y.reshape(-1, n, size)[:, 0]) if turned else (x[0], y.reshape(n, -1, size)[0])
    known = {*own.reshape(len(own), -1)[:, 0].tolist(), ignored}
    return len([a for a in asked[:, 0].tolist() if a not in known]) <= max(SHIFTS)


def _list_targets(forward: ForwardPass) -> Iterator[tuple[Tensor, int]]:
    """What the calls of losses compare with, and the label that is left out."""
    for o in forward.watched.operations:
        if "compared" in o.handles:
            weighing = o.handles.get("weighing")
            yield o.handles["compared"][1], IGNORED if weighing is None else weighing.ignored


def _judge(
    x: Tensor,
    y: Tensor,
    ignored: int,
    output: Tensor,
    gradient: Tensor,
    forward: ForwardPass,
    turned: bool = False,
) -> AnswerFacts | None:
    """`gradient`: of the loss at the output; `turned`: the first axis is that of the steps."""
    n, steps = (x.shape[1], x.shape[0]) if turned else x.shape[:2]
    spread = _lay_out(output, n, steps, turned)
    if spread is None:
        return None
    used = _turn(gradient.detach(), spread, turned).abs().amax((0, 1, 3)).nonzero().flatten()
    rest = x.shape[2:]
    per = n * rest.numel()
    if len(used) < SHORT or not y.numel() or y.numel() % per:
        return None
    asked = y.numel() // per
    own = y.reshape(asked, n, *rest).transpose(0, 1) if turned else y.reshape(n, asked, *rest)
    own = own.detach()[:, (own != ignored).reshape(n, asked, -1).any(2).any(0)]
    if own.shape[1] != len(used):
        return None
    shift = _find_shift(x.detach().transpose(0, 1) if turned else x.detach(), own, used, ignored)
    if shift is None or (shift != 1 and x.is_floating_point()):
        return None
    at = int(used[len(used) // 2])
    edges = _find_edges(x, forward)
    apart, beside = Steps(steps, at), n if turned else 1  # samples between two steps
    if shift > 0 and apart.are_apart(
        output, [e.node for e in edges], beside * rest.numel(), beside * spread[3]
    ):
        return {"shift": shift, "sees": False, "ahead": False, "whole": not x.is_floating_point()}
    seen = _find_seen(_turn(output, spread, turned)[:, :, at], x, edges, turned)
    if seen is None or not 0 <= at + shift < steps:
        return None
    sees: bool | None = bool(seen[at + shift])
    if sees and not shift and rest.numel() > 1:  # a row of a picture: its own place, not its neighbours
        sees = None if turned else _sees_itself(_turn(output, spread, turned)[:, :, at], x, edges, at)
    if sees is None:
        return None
    return {
        "shift": shift,
        "sees": sees,
        "ahead": bool(seen[at + 1 :].any()),
        "whole": not x.is_floating_point(),
    }


def _turn(output: Tensor, spread: tuple[int, ...], turned: bool) -> Tensor:
    """An output as (samples, before, steps, after)."""
    if not turned:
        return output.reshape(spread)
    n, _, steps, after = spread
    return output.reshape(steps, n, 1, after).permute(1, 2, 0, 3)


def _lay_out(output: Tensor, n: int, steps: int, turned: bool) -> tuple[int, ...] | None:
    """The shape (samples, before, steps, after) that an output is read in; None if it has no steps."""
    shape = tuple(output.shape)
    if turned:
        own = shape[:2] == (steps, n) or shape[:1] == (steps * n,)
        return (n, 1, steps, output.numel() // (n * steps)) if own and len(shape) > 1 else None
    if not shape or (shape[0] != n and shape[0] != n * steps):
        return None
    if shape[0] == n * steps:
        return (n, 1, steps, output[0].numel())
    places = [i for i in range(1, len(shape)) if shape[i] == steps]
    if not places:
        return None
    axis = places[0]
    before, after = 1, 1
    for i in range(1, len(shape)):
        before, after = (
            (before * shape[i], after) if i < axis else (before, after * (shape[i] if i > axis else 1))
        )
    return (n, before, steps, after)


def _find_shift(x: Tensor, y: Tensor, used: Tensor, ignored: int) -> int | None:
    """By how many steps the targets are the input, moved; None if they are not, or by several."""
    found, places = [], see(used.cpu())
    own, wanted = (see((t.double() if t.is_floating_point() else t).cpu()) for t in (x, y))
    at, first, asked = (a.reshape(len(a), -1)[:, 0].tolist() for a in (places, own[0], wanted[0]))
    for shift in SHIFTS:
        pairs = [(first[i + shift], a) for i, a in zip(at, asked, strict=True) if 0 <= i + shift < len(first)]
        if any(mine != a != ignored for mine, a in pairs):  # of one sample, which is soon told
            continue
        keep = (places + shift >= 0) & (places + shift < own.shape[1])
        moved, theirs = own[:, places[keep] + shift], wanted[:, keep]
        valid = theirs != ignored
        if np.count_nonzero(valid) >= ENOUGH and bool((moved == theirs)[valid].all()):
            found.append(shift)
            if len(np.unique(theirs[valid])) < KINDS:
                return None
    return found[0] if len(found) == 1 else None


def _looks_up(node: Any, x: Tensor) -> bool:
    """Whether an embedding read an input as it is."""
    indices = find_saved(node, "_saved_indices")
    return indices is not None and indices.shape == x.shape and bool((indices == x).all())


def _find_edges(x: Tensor, forward: ForwardPass) -> list[GradientEdge]:
    """Where an input of the model enters the graph."""
    if x.is_floating_point():
        return [get_gradient_edge(leaf) for leaf in forward.call.inputs.values() if leaf.shape == x.shape]
    return [
        GradientEdge(o.nodes[0], 0)
        for o in forward.watched.operations
        if o.kind == "embedding" and _looks_up(o.nodes[0], x)
    ]


def _sees_itself(own: Tensor, x: Tensor, edges: list[GradientEdge], at: int) -> bool | None:
    """Whether the output of one place depends on the input there; None if its places are not known.

    `own`: (samples, before, after) of one step, whose places lie in `after`, before the scores of each.
    """
    places = x.shape[2:].numel()
    if own.shape[2] % places or not edges:
        return None
    width, middle = own.shape[2] // places, places // 2
    root = calls.random_cotangent(own[:, :, middle * width : (middle + 1) * width])
    ways = torch.autograd.grad(root, edges, retain_graph=True, allow_unused=True)
    sizes = [
        w.detach().double().reshape(*x.shape[:2], places, -1).abs().amax((0, 3))
        for w in ways
        if w is not None
    ]
    if not sizes:
        return None
    size = torch.stack(sizes).amax(0)
    return bool(size[at, middle] > LEAST * size.max())


def _find_seen(own: Tensor, x: Tensor, edges: list[GradientEdge], turned: bool) -> Tensor | None:
    """Which steps of the input the output of one step depends on, (T,)."""
    if not edges:
        return None
    root = calls.random_cotangent(own)
    try:
        ways = torch.autograd.grad(root, edges, retain_graph=True, allow_unused=True)
    except RuntimeError:  # a backward of somebody's own that wants all outputs
        return None
    sizes = [
        w.detach().double().reshape(*x.shape[:2], -1).abs().amax((1 if turned else 0, 2))
        for w in ways
        if w is not None
    ]
    if not sizes:
        return None
    size = torch.stack(sizes).amax(0)
    return size > LEAST * size.max()
