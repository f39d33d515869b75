"""Residual blocks, version 2: x + convolution(activation(norm(x))), twice; no activation after the sum.

Notable: the identity reaches from the first block to the last one, and so does the gradient. A norm and an
activation follow the last block (`NormActivation`).

References: He et al. 2016 (arXiv 1603.05027), figure 1b and section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.activations import activation as activation_module
from unvanish.lab.models.blocks.norms import norm as norm_module
from unvanish.lab.models.blocks.residual import identity_path, pads
from unvanish.lab.models.initialise import Begin


class NormActivation(nn.Module):
    """activation(norm(x)): (B, C, H, W) to the same."""

    def __init__(self, width_in: int, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()
        self.norm = norm_module(norm, width_in)
        self.activation = activation_module(activation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.norm(x))
        return y


class PreActivationBlock(nn.Module):
    """Norm, activation, 3 x 3 convolution, twice, with a shortcut.

    (B, width_in, H, W) to (B, out, H / stride, W / stride).
    """

    BRANCHES = 1

    def __init__(
        self,
        width_in: int,
        out: int,
        stride: int = 1,
        shortcut: str = "pad",
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.before = NormActivation(width_in, activation, norm)
        self.conv1 = nn.Conv2d(width_in, out, 3, stride, 1, bias=False)
        self.between = NormActivation(out, activation, norm)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = identity_path(shortcut, width_in, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(self.between(self.conv1(self.before(x))))
        y: Tensor = self.shortcut(x) + branch
        return y

    def initialise(self, begin: Begin) -> None:
        """Start the branch at zero in a deep net, or if nothing normalises it (see `BasicBlock`)."""
        if pads(self.shortcut):
            return
        begin.end_branch(self.conv2, always=isinstance(self.between.norm, nn.Identity))


EXAMPLES = {
    NormActivation: Example({}, [IMAGE], IMAGE),
    PreActivationBlock: Example({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
}
