"""What is said of an epsilon: in float16 a small one is zero, and elsewhere it is held."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import unvanish

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
Scale = Callable[[Tensor], Tensor]
ENDS: dict[str, Scale] = {
    "a norm by hand": lambda h: h / (h.pow(2).sum(-1, keepdim=True).sqrt() + 1e-12),
    "a range": lambda h: h / (h.amax(-1, keepdim=True) - h.amin(-1, keepdim=True) + 1e-8),
    "a share": lambda h: h / (h.abs().sum(-1, keepdim=True) + 1e-9),
    "torch's own": lambda h: nn.functional.normalize(h, dim=-1),
}


class Rows(nn.Module):
    """A linear map, some of whose rows are masked, and scaled."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.scale = nn.Linear(8, 8), scale

    def forward(self, x: Tensor) -> Tensor:
        mask = (x[:, :1] < 1).to(x.dtype)
        return self.scale(self.inner(x) * mask)


def advise(scale: Scale, dtype: torch.dtype) -> str:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(o.float(), y)

    found = unvanish.check(Rows(scale).to(dtype), (X.to(dtype), X), loss, confirm=False).findings
    worst = [f for f in found if f.code in ("NUM001", "PRC002")][:1]
    return " ".join(r.why for f in worst for r in f.remedies)


@pytest.mark.parametrize("name", ENDS)
def test_in_float16_a_small_epsilon_is_said_to_be_zero(name: str) -> None:
    said = advise(ENDS[name], torch.float16)
    assert "below 3e-8 to zero" in said and "1e-4" in said


@pytest.mark.parametrize("name", list(ENDS)[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elsewhere_it_is_held(name: str, dtype: torch.dtype) -> None:
    assert "float16" not in advise(ENDS[name], dtype)


def test_the_constant_that_is_named_is_held() -> None:
    assert torch.tensor(2.9e-8, dtype=torch.float16) == 0 < torch.tensor(1e-4, dtype=torch.float16)
    assert advise(lambda h: h / (h.abs().sum(-1, keepdim=True) + 1e-4), torch.float16) == ""
