"""ACT004 on small nets: which dropouts count, and when nothing is judged."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Diagnosis


def check(model: nn.Module) -> Diagnosis:
    torch.manual_seed(0)
    batch = torch.randn(16, 8), torch.randint(0, 3, (16,))
    return unvanish.check(model, batch, F.cross_entropy, confirm=False)


class Functional(nn.Module):
    """A dropout by function, which forgets its mode if `training` is None."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.layer, self.share = nn.Linear(8, 3), share

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(F.dropout(x, self.share, self.training))
        return out


@pytest.mark.parametrize(
    ("share", "severity"), [(0.89, None), (0.9, "warning"), (0.95, "warning"), (1.0, "error")]
)
def test_the_share_decides(share: float, severity: str | None) -> None:
    for model in (nn.Sequential(nn.Dropout(share), nn.Linear(8, 3)), Functional(share)):
        found = [f.severity for f in check(model).walk() if f.code == "ACT004"]
        assert found == ([] if severity is None else [severity])


def test_a_dropout_that_is_off_is_not_judged() -> None:
    model = nn.Sequential(nn.Dropout(0.95), nn.Linear(8, 3)).eval()
    reasons = {v.code: v.reason for v in check(model).not_applicable}
    assert reasons["ACT004"] == "no dropout is active"
