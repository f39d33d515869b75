"""Numbers of classes that a loss takes for quantities: a squared error against labels.

Notable:
- Labels are whole numbers in the batch, from 0 on without a gap, whatever the loss makes floats of.
- Grades and counts are whole numbers too, and a squared error is right for them: they seldom are equally
  frequent. Tokens that the model looks up in a table, and one label against a score for each class, are none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unvanish.core.loss_facts import ClassNumberFacts, Sureness
from unvanish.probes.calls import tensors_in
from unvanish.probes.events import OperationCall
from unvanish.probes.passes import BackwardPass, ForwardPass
from unvanish.probes.saved import find_saved

ERRORS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
SQUARES = ("pow", "square", "abs", "mul", "norm", "linalg_vector_norm", "sqrt", "dot")
FEWEST = 3  # kinds of labels: of two, 0 and 1 are a yes or no
CHANCE = 4.0  # deviations of chi-square up to which labels are equally frequent


def find_class_numbers(forward: ForwardPass, backward: BackwardPass) -> ClassNumberFacts | None:
    """Labels that a squared or absolute error compares with what the model made; None if there are none."""
    calls, graph = forward.watched.loss_calls, backward.graph
    errors = [c for c, _ in calls.made if c.kind in (*ERRORS, "sub", "rsub")]
    labels = [t for t in calls.originals if errors and _are_labels(t)]
    if not labels or graph is None:
        return None
    squared = {id(t) for c, _ in calls.made if c.kind in SQUARES for t in tensors_in(c.args, 1)}
    for call, operation in calls.made:
        error = call.kind in ERRORS or (call.kind in ("sub", "rsub") and id(call.result) in squared)
        if not error or operation.nodes[0] not in graph.index:
            continue
        if (found := _compare(call, labels, forward)) is not None:
            return {**found, "source": calls.lines.get(operation.order, "")}
    return None


def _are_labels(t: Tensor) -> bool:
    """Whether a tensor holds numbers of classes."""
    if t.dtype in (torch.bool, torch.uint8) or t.is_floating_point() or t.is_complex() or t.numel() < 2:
        return False
    kinds = torch.unique(t)
    whole = int(kinds[0]) == 0 and int(kinds[-1]) == len(kinds) - 1
    return (whole and len(kinds) >= FEWEST) or _is_large(kinds)


def _is_large(kinds: Tensor) -> bool:
    """Whether the kinds are so many that a batch cannot hold all of them, as of tokens."""
    return len(kinds) >= 8 and int(kinds[0]) >= 0


def _compare(call: OperationCall, labels: list[Tensor], forward: ForwardPass) -> ClassNumberFacts | None:
    given = [t for t in tensors_in(call.args, 1)]
    ours = next((t for t in given if t.requires_grad), None)
    if ours is None:
        return None
    for answers in given:
        if answers is ours or not forward.watched.loss_calls.is_target(answers):
            continue
        for t in labels:
            each = _match(answers, t, ours)
            if each is not None and (how := _judge(t, each, ours, forward)) is not None:
                return {"kinds": int(t.max()) + 1, "how": how, "source": ""}
    return None


def _judge(t: Tensor, each: bool, ours: Tensor, forward: ForwardPass) -> Sureness | None:
    """How sure it is that labels name classes; None if they do not look like it."""
    kinds = int(t.max()) + 1
    if each and ours.shape[1] >= kinds:
        return "each"
    if _are_tokens(t, forward):
        return "tokens"
    if each or int(torch.unique(t).numel()) < kinds:
        return None
    return "even" if _are_even(t, kinds) else "uneven"


def _match(answers: Tensor, t: Tensor, ours: Tensor) -> bool | None:
    """False if answers are a label for each number, True if one for several; None if they are others."""
    if answers.numel() == t.numel():
        if not bool((answers.flatten() == t.flatten()).all()):
            return None
        return ours.ndim > 1 and ours.shape[0] == len(t) and ours.numel() > t.numel()
    if answers.ndim < 2 or answers.shape[0] != t.numel() or answers.shape != ours.shape:
        return None
    return True if bool((answers == t.reshape(-1, *(1,) * (answers.ndim - 1))).all()) else None


def _are_tokens(t: Tensor, forward: ForwardPass) -> bool:
    """Whether labels have the shape of tokens that the model looks up in a table, which is long enough."""
    for o in forward.watched.operations:
        if o.kind == "embedding" and o.order < forward.watched.loss_order:
            indices = find_saved(o.nodes[0], "_saved_indices")
            rows = find_saved(o.nodes[0], "_saved_weight_sym_argsize_0")
            if indices is None or rows is None or indices.shape != t.shape:
                continue
            if int(t.max()) < int(rows):
                return t.ndim > 1
    return False


def _are_even(t: Tensor, kinds: int) -> bool:
    """Whether labels are equally frequent, as far as chance goes."""
    counts = torch.bincount(t.flatten().cpu(), minlength=kinds).double()
    mean, free = float(counts.mean()), kinds - 1
    chi = float(((counts - mean) ** 2).sum()) / mean
    return bool(chi <= free + CHANCE * (2 * free) ** 0.5)
