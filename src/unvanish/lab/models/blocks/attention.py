"""Multi-head attention (Vaswani et al. 2017), with optionally normalised queries and keys.

Notable:
- Queries, keys, values and the output are four Linear layers, so each has its own name, initialisation and
  gradient. PyTorch's fused kernel does the rest.
- `qk_norm` divides each head's queries and keys by their root mean square, with a learned scale each (Henry
  et al. 2020; Dehghani et al. 2023): logits stay bounded.
- Without `memory` it is self-attention; with it, queries come from x, keys and values from the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.lab.models.blocks._example import SERIES, Example
from unvanish.lab.models.blocks.masks import attention_mask

if TYPE_CHECKING:
    from unvanish.lab.models.initialise import Begin


class MultiHeadAttention(nn.Module):
    """Attention of (B, T, width) to itself or to a memory (B, S, width_memory), (B, T, width)."""

    def __init__(
        self,
        width_in: int,
        heads: int = 4,
        causal: bool = False,
        dropout: float = 0.0,
        qk_norm: bool = False,
        width_memory: int | None = None,
    ) -> None:
        super().__init__()
        if heads < 1 or width_in % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width_in}; take a divisor of it")
        self.heads, self.causal, self.dropout = heads, causal, dropout
        source = width_in if width_memory is None else width_memory
        self.q = nn.Linear(width_in, width_in)
        self.k = nn.Linear(source, width_in)
        self.v = nn.Linear(source, width_in)
        self.out = nn.Linear(width_in, width_in)
        head = width_in // heads
        self.q_norm, self.k_norm = (nn.RMSNorm(head) if qk_norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """Mix values by the softmax of queries with keys; `mask` (B, S) marks the real keys."""
        source = x if memory is None else memory
        q, k, v = self._split(self.q(x)), self._split(self.k(source)), self._split(self.v(source))
        fast = self.causal and mask is None and memory is None  # the kernel knows this mask itself
        may = None if fast else attention_mask(q.shape[2], k.shape[2], mask, self.causal, x.device)
        mixed = F.scaled_dot_product_attention(
            self.q_norm(q),
            self.k_norm(k),
            v,
            attn_mask=may,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=fast,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, D)

    def initialise(self, begin: Begin, value: float = 1.0, end: float = 1.0) -> None:
        """Unit power in, unit power out; `value`, `end`: factors of the values' and the output's weights."""
        for layer, factor in ((self.q, 1.0), (self.k, 1.0), (self.v, value), (self.out, end)):
            begin.layer(layer, factor=factor)


EXAMPLES = {
    MultiHeadAttention: Example({"heads": 2}, [SERIES], SERIES),
}
