"""What a watched forward consists of: calls of modules, calls of operations, and the operations recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unvanish.core.facts import NodeFacts
from unvanish.probes import operations
from unvanish.probes.handles import Handles, Node
from unvanish.probes.signatures import bind


@dataclass
class ModuleCall:
    """One call of one module: its path, which call of it, from 0, its parent, and its output's nodes."""

    path: str
    index: int
    module: nn.Module
    parent: ModuleCall | None
    start: int  # the sequence number when it began
    outputs: tuple[tuple[Node, int], ...] = ()
    inputs: Any = None
    result: Any = None
    version: int = 0  # of the result's first tensor, when the call ended


@dataclass(slots=True)
class OperationCall:
    """One call of an operation: what went in, and what came out; `call["weight"]` is an argument by name."""

    kind: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    start: int  # the sequence number when it began
    result: Any = None
    bound: dict[str, Any] | None = field(default=None, init=False)  # once an argument was asked for

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name; KeyError for a kind without a signature."""
        if self.bound is None:
            self.bound = bind(self.kind, self.args, self.kwargs)
        return self.bound

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def given(self) -> tuple[Any, ...]:
        """All arguments, by position and by keyword, without defaults."""
        return (*self.args, *self.kwargs.values()) if self.kwargs else self.args


@dataclass
class Operation:
    """One operation that made a node: its kind, the module call it ran in, and what was measured of it."""

    kind: str
    caller: ModuleCall
    order: int
    start: int
    nodes: tuple[Node, ...] = ()
    parameters: tuple[str, ...] = ()
    facts: NodeFacts = field(default_factory=NodeFacts)
    handles: Handles = field(default_factory=Handles)
    stats: dict[str, float] = field(default_factory=dict)
    family: str = field(init=False)  # that rules know it by

    def __post_init__(self) -> None:
        self.family = operations.family(self.kind)
