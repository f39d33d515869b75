"""Residual blocks, version 1: relu(x + branch(x)), basic and bottleneck.

Notable:
- If the size changes, the identity is subsampled and padded with zero channels ("pad", option A, no
  parameters: the CIFAR form) or projected by a 1 x 1 convolution ("project", option B: the ImageNet form).
- With `init: critical` deep networks start as the identity: the last scale of each branch is zero.

References: He et al. 2016 (arXiv 1512.03385), section 3.3 and 4.2; Goyal et al. 2017 (zero gamma).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from unvanish.core.registry import suggest
from unvanish.lab.models.blocks._example import IMAGE, Example
from unvanish.lab.models.blocks.activations import activation as activation_module
from unvanish.lab.models.blocks.conv import Conv
from unvanish.lab.models.initialise import Begin

SHORTCUTS = ("pad", "project")


class PadShortcut(nn.Module):
    """Every stride-th position, and zeros for the channels that are new: no parameters."""

    def __init__(self, width_in: int, out: int, stride: int = 1) -> None:
        super().__init__()
        if out < width_in:
            raise ValueError(f"shortcut 'pad' cannot narrow {width_in} channels to {out}; use 'project'")
        self.stride, self.new = stride, out - width_in

    def forward(self, x: Tensor) -> Tensor:
        low = self.new // 2
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, low, self.new - low))


def identity_path(kind: str, width_in: int, out: int, stride: int, norm: str) -> nn.Module:
    """The path around a branch: the identity if the shape fits."""
    if kind not in SHORTCUTS:
        raise ValueError(f"no shortcut {kind!r}{suggest(kind, SHORTCUTS)}; there are {', '.join(SHORTCUTS)}")
    if stride == 1 and width_in == out:
        return nn.Identity()
    if kind == "pad":
        return PadShortcut(width_in, out, stride)
    return Conv(width_in, out, 1, stride, activation="none", norm=norm)


def pads(path: nn.Module) -> bool:
    """Whether channels of this shortcut are zero."""
    return isinstance(path, PadShortcut) and path.new > 0


class _Residual(nn.Module):
    """activation(shortcut(x) + branch(x))."""

    BRANCHES = 1
    branch: nn.Sequential
    shortcut: nn.Module
    activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.shortcut(x) + self.branch(x))
        return y

    def initialise(self, begin: Begin) -> None:
        """Start the branch at zero: its last scale in a deep net, its last layer if it has no norm.

        Not if the shortcut pads: channels that are zero on both paths stay zero, since ReLU has no slope
        there.
        """
        if pads(self.shortcut):
            return
        last = self.branch[-1]
        assert isinstance(last, Conv)
        bare = isinstance(last.norm, nn.Identity)
        begin.end_branch(last.conv if bare else last.norm, always=bare)


class BasicBlock(_Residual):
    """Two 3 x 3 convolutions with a shortcut: (B, width_in, H, W) to (B, out, H / stride, W / stride)."""

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
        self.branch = nn.Sequential(
            Conv(width_in, out, 3, stride, activation=activation, norm=norm),
            Conv(out, out, 3, activation="none", norm=norm),
        )
        self.shortcut = identity_path(shortcut, width_in, out, stride, norm)
        self.activation = activation_module(activation)


class Bottleneck(_Residual):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 with a shortcut; a quarter of `out` channels inside."""

    def __init__(
        self,
        width_in: int,
        out: int,
        stride: int = 1,
        shortcut: str = "project",
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        inner = out // 4
        self.branch = nn.Sequential(
            Conv(width_in, inner, 1, activation=activation, norm=norm),
            Conv(inner, inner, 3, stride, activation=activation, norm=norm),
            Conv(inner, out, 1, activation="none", norm=norm),
        )
        self.shortcut = identity_path(shortcut, width_in, out, stride, norm)
        self.activation = activation_module(activation)


EXAMPLES = {
    PadShortcut: Example({"out": 9, "stride": 2}, [IMAGE], (4, 9, 4, 4)),
    BasicBlock: Example({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
    Bottleneck: Example({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
}
