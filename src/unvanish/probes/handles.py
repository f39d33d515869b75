"""What the later looks at the graph need of an operation, and no site keeps: tensors and nodes."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from unvanish.core.facts import OutputFacts

Node = torch.autograd.graph.Node
End = tuple[Node | None, int]  # a node, and which of its outputs


class Weighing(NamedTuple):
    """How a cross-entropy weighs its samples: by class or number, by yes, and how far labels are smoothed."""

    weight: Tensor | None
    positive: Tensor | None
    smoothing: float
    ignored: int
    reduction: int


class Handles(TypedDict, total=False):
    """Tensors and nodes of one operation, by what they are to it."""

    weight_tensor: Tensor  # of a layer, detached
    factors: tuple[End, ...]  # of a matrix product
    equation: str  # of an einsum, without blanks
    scores: Node | None  # what a softmax reads
    ends: tuple[End, End]  # queries and values of an attention
    reads: Node | None  # what a loss function reads
    compared: tuple[Tensor, Tensor]  # that, and the targets
    given: bool  # the targets come from the batch
    unreduced: bool  # the loss function gives a number for each of them, or weighs each
    reading: OutputFacts  # how wrong that is
    weighing: Weighing  # of a cross-entropy that weighs or smooths, or may read targets made anew
    swapped: bool  # the targets stand where the output should
    short: float  # share of the samples with fewer steps than targets
    made_nonfinite: bool  # made a NaN or an infinity of finite numbers
    made_nan: bool  # made a NaN of numbers that held none
    fed_nonfinite: bool  # read a NaN or an infinity
    packed: bool  # hooks of the program pack what its nodes save
