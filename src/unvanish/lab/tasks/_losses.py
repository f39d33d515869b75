"""Cross entropy over tokens, and the loss of sequence models, which depends on the type of the targets."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from unvanish.lab.tokens import PAD


class TokenCrossEntropy(nn.Module):
    """Mean cross entropy of logits (B, T, V) against ids (B, T); positions that are padding do not count."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss, a scalar, in nats per token."""
        return cross_entropy(
            output.flatten(0, -2), y.flatten(), ignore_index=PAD, label_smoothing=self.smoothing
        )


class SequenceLoss(nn.Module):
    """Mean squared error for real targets (B,), cross entropy for classes (B,) or symbols (B, T).

    The symbol 0 is a blank and does not count. If it did, as in the original copy task, blanks would be most
    of the loss and hide how far the gradient of the rest reaches.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss, a scalar: in squared units of y, or in nats per class or symbol."""
        if y.is_floating_point():
            return mse_loss(output.reshape(y.shape), y)
        blank = PAD if y.ndim > 1 else -100  # what a class cannot be
        return cross_entropy(
            output.flatten(0, -2), y.flatten(), ignore_index=blank, label_smoothing=self.smoothing
        )
