"""The parameters of a model by identity, the norms of those that did not change, and who fell asleep."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unvanish.probes.lines import find_line


class NamedParameters:
    """Names of parameters by id, and their norms until something writes to them."""

    def __init__(self, parameters: Mapping[str, Tensor], norms: Mapping[str, float]) -> None:
        self.names = {id(p): name for name, p in parameters.items()}
        self.trainable = {name for name, p in parameters.items() if p.requires_grad}
        self.asleep: set[str] = set()  # of them, those that an operation read without requires_grad
        self.lines: dict[str, str] = {}  # where requires_grad was turned off
        self._parameters = parameters
        self._norms = norms
        self._versions = {name: parameters[name]._version for name in norms}

    def name(self, tensor: Tensor) -> str | None:
        """The name of a parameter; None if the tensor is not one."""
        return self.names.get(id(tensor))

    def leave_model(self) -> None:
        """The model has run; what it froze for good is frozen, and no sleeper."""
        self.trainable -= self._find_frozen()

    def find_sleepers(self) -> set[str]:
        """Parameters that do not learn: requires_grad was off while they ran, or is at the backward."""
        return (self.asleep & self.trainable) | self._find_frozen()

    def _find_frozen(self) -> set[str]:
        with torch._C.DisableTorchFunction():  # a mode would be told of every look
            return {n for n in self.trainable if not self._parameters[n].requires_grad}

    def turn_off(self, tensor: Tensor) -> None:
        """The requires_grad of a tensor is set to False in the line that is running."""
        name = self.names.get(id(tensor))
        if name is not None:
            self.lines.setdefault(name, find_line())

    def norm(self, tensor: Tensor) -> float | None:
        """The norm of a parameter; None if it was not measured, or the parameter was written to since."""
        name = self.names.get(id(tensor), "")
        same = name in self._norms and self._versions[name] == tensor._version
        return self._norms[name] if same else None
