"""The parameters of a model by identity, and the norms of those that did not change since."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class NamedParameters:
    """Names of parameters by id, and their norms until something writes to them."""

    def __init__(self, parameters: Mapping[str, Tensor], norms: Mapping[str, float]) -> None:
        self.names = {id(p): name for name, p in parameters.items()}
        self._norms = norms
        self._versions = {name: parameters[name]._version for name in norms}

    def name(self, tensor: Tensor) -> str | None:
        """The name of a parameter; None if the tensor is not one."""
        return self.names.get(id(tensor))

    def norm(self, tensor: Tensor) -> float | None:
        """The norm of a parameter; None if it was not measured, or the parameter was written to since."""
        name = self.names.get(id(tensor), "")
        same = name in self._norms and self._versions[name] == tensor._version
        return self._norms[name] if same else None
