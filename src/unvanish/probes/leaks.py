"""Whether the output of one sample depends on other samples: one backward from it, if there is a sign of it.

Notable:
- Without statistics of the batch, the gradient of one sample's output with respect to the others is exactly
  zero, in any dtype.
- Left alone are graphs (an adjacency of the batch's size), outputs that compare all samples with all, and
  statistics of the batch by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from unvanish.core.facts import LeakFacts
from unvanish.probes import calls
from unvanish.probes.mixing import Sign
from unvanish.probes.passes import BackwardPass, ForwardPass, Specimen

LEAST = 1e-6  # of the own gradient: less would be no dependence worth a word
ROWS = 3  # axes of an input whose samples are more than single rows
MOST = 64  # signs that are looked at


def find_leak(specimen: Specimen, forward: ForwardPass, backward: BackwardPass) -> LeakFacts | None:
    """The facts of a leak between samples; None without one, or if nothing speaks for a look."""
    batch, watched = forward.call.batch_size, forward.watched
    if backward.graph is None or batch is None or batch < 2 or watched.mixing.by_hand:
        return None
    if any(o.facts.get("batch_statistics") for o in watched.operations):
        return None
    output = next(iter(calls.predictions(forward.output)), None)
    if output is None or not _has_samples(output, batch) or _is_graph(specimen, forward, batch):
        return None
    signs = [*watched.mixing.signs, *_find_layers(forward, batch)]
    if not signs:
        return None
    signs.sort(key=lambda sign: sign.order)
    sample = min(batch - 1, 2 * batch // 3 | 1)  # odd: a wrong view of round sizes maps half of them right
    found = _measure(output, signs[-MOST:], forward, sample)
    alone = [sign for sign in signs if sign.how == "offset"]
    return _name(alone[0], math.inf, output, forward) if found is None and alone else found


def _has_samples(output: Tensor, batch: int) -> bool:
    square = output.ndim == 2 and output.shape[1] == batch  # each sample compared with each
    return output.requires_grad and output.ndim > 0 and output.shape[0] == batch and not square


def _is_graph(specimen: Specimen, forward: ForwardPass, batch: int) -> bool:
    """Whether something as long as the batch on both sides says which samples belong together."""
    given = [*forward.call.given, *specimen.model.buffers()]
    edges = any(not t.is_floating_point() and t.ndim == 2 and t.shape[0] == 2 for t in forward.call.given)
    return edges or any(t.ndim == 2 and tuple(t.shape) == (batch, batch) for t in given)


def _find_layers(forward: ForwardPass, batch: int) -> list[Sign]:
    """Attentions and recurrent layers whose tokens or steps are as many as the samples."""
    found = []
    for o in forward.watched.operations:
        if o.family == "attention" and o.facts.get("tokens") == batch:
            found.append(Sign("attention", o.nodes[0], o.order, o.caller.path, ""))
    for call in forward.watched.module_calls:
        if isinstance(call.module, nn.RNNBase) and not call.module.batch_first and call.outputs:
            x = next(iter(calls.tensors_in(call.inputs)), None)
            if x is not None and x.ndim == 3 and x.shape[0] == batch:
                found.append(Sign("recurrent", call.outputs[0][0], 1 << 30, call.path, ""))
    return found


def _measure(output: Tensor, signs: Sequence[Sign], forward: ForwardPass, sample: int) -> LeakFacts | None:
    root, batch = calls.random_cotangent(output[sample]), len(output)
    leaves = _find_ends(forward, batch)
    wanted: list[Any] = [*leaves, *(GradientEdge(sign.node, 0) for sign in signs)]
    try:
        found = torch.autograd.grad(root, wanted, retain_graph=True, allow_unused=True)
    except RuntimeError:  # a backward of somebody's own that wants all outputs
        return None
    ends, ways = found[: len(leaves)], found[len(leaves) :]
    ratio = max((_compare(g, sample, batch) for g in ends if g is not None), default=0.0)
    if not ratio > LEAST:
        return None
    passed = [s for s, g in zip(signs, ways, strict=True) if g is not None and not _leaks(g, sample, batch)]
    if not passed:
        return None
    chosen = passed[0]
    same = [s for s in signs if s.path == chosen.path and s.how == "attention"]
    chosen = same[0] if same and chosen.how == "product" else chosen
    return _name(chosen, ratio, output, forward)


def _name(sign: Sign, ratio: float, output: Tensor, forward: ForwardPass) -> LeakFacts:
    return {
        "path": sign.path,
        "how": sign.how,
        "line": sign.line,
        "ratio": ratio,
        "sure": _is_sure(output, forward, len(output)),
        "rows": _count_axes(forward) < ROWS,
    }


def _find_ends(forward: ForwardPass, batch: int) -> list[Any]:
    """Where the samples enter: the float inputs, and the embeddings of the others."""
    inputs = [x for x in forward.call.inputs.values() if x.ndim and x.shape[0] == batch]
    looked_up = [
        GradientEdge(o.nodes[0], 0)
        for o in forward.watched.operations
        if o.kind == "embedding" and o.facts.get("shape", (0,))[0] == batch and len(o.facts["shape"]) > 2
    ]
    return [*inputs, *looked_up]


def _compare(gradient: Tensor, sample: int, batch: int) -> float:
    """The largest gradient at another sample over that at the own one."""
    if gradient.ndim == 0 or gradient.shape[0] != batch or gradient.is_sparse:
        return 0.0
    norms = gradient.detach().double().reshape(batch, -1).norm(dim=1)
    own = float(norms[sample])
    norms[sample] = 0
    other = float(norms.max())
    if not math.isfinite(own) or not math.isfinite(other):
        return 0.0
    return other / own if own else math.inf if other else 0.0


def _leaks(gradient: Tensor, sample: int, batch: int) -> bool:
    """Whether other samples are reached already above this point."""
    return _compare(gradient, sample, batch) > LEAST


def _count_axes(forward: ForwardPass) -> int:
    """The axes of the inputs, with that of the features for tokens that are looked up."""
    given = forward.call.originals.values()
    return max((x.ndim + (not x.is_floating_point()) for x in given), default=0)


def _is_sure(output: Tensor, forward: ForwardPass, batch: int) -> bool:
    """Whether the first axis is that of the samples, and not of time."""
    first = next(iter(forward.call.originals.values()), None)
    if first is None:  # a training step that calls parts of its model
        return False
    if first.ndim >= 4:
        return True
    twins = first.ndim == 3 and first.shape[0] == first.shape[1]
    targets = [t for t in forward.call.given if id(t) not in {id(x) for x in forward.call.originals.values()}]
    labels = any(t.ndim == 1 and t.shape[0] == batch for t in targets)
    return (output.ndim == 2 or labels) and not twins
