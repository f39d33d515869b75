"""What a look reads of attention by head, of the output's log Z, and of a router's load."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from unvanish.clinic.watch import LIVE, watch
from unvanish.probes.live.routing import read_load
from unvanish.probes.live.sharpness import measure_log_z, pick_logits, sharpness


def test_one_sharp_head_of_four_is_seen() -> None:
    q, k = torch.zeros(2, 4, 8, 6), torch.randn(2, 4, 8, 6)
    q[:, 2] = 100 * k[:, 2]
    picked = pick_logits("scaled_dot_product_attention", (q, k, k), {})
    assert picked is not None
    mean, largest, sharpest = sharpness(*picked).tolist()
    assert sharpest < 0.1 and 0.7 < mean < 0.8 and largest > 50


def test_a_softmax_by_hand_is_read_at_all_heads_and_queries() -> None:
    logits = torch.zeros(64, 8, 64, 64)  # as many rows a sample as lie between those of a plain stride
    logits[:, 5, :, 0] = 100.0
    picked = pick_logits("softmax", (logits, -1), {})
    assert picked is not None and len(picked[0]) == 64
    assert set(picked[1].tolist()) == set(range(8))
    mean, _, sharpest = sharpness(*picked).tolist()
    assert sharpest == pytest.approx(0, abs=1e-9) and 0.5 < mean < 1


def test_log_z_is_that_of_its_rows() -> None:
    x = torch.randn(3, 5, 7)
    assert float(measure_log_z(x)) == pytest.approx(float(x.logsumexp(-1).mean()), rel=1e-5)  # type: ignore[arg-type]
    assert measure_log_z(torch.randn(3, 2)) is None and measure_log_z(torch.randn(5)) is None


class Mixture(nn.Module):
    """Four experts, two for each token."""

    def __init__(self, push: float = 0.0) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.gate.bias.data[0] += push

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        every = torch.stack([expert(x) for expert in self.experts], 1)
        made: Tensor = (every.gather(1, chosen[..., None].expand(-1, -1, 6)) * weights[..., None]).sum(1)
        return made


def test_a_load_is_counted_where_there_are_as_many_experts() -> None:
    model, scores = Mixture(), torch.tensor([[4.0, 3.0, 0.0, 0.0], [4.0, 0.0, 3.0, 0.0]])
    found = read_load(model, "gate", scores, scores.topk(2, -1))
    assert found is not None and found.load.tolist() == [2, 1, 1, 0] and found.shape == (2, 4, 2)
    assert read_load(model, "", scores[:, :3], scores[:, :3].max(-1)) is None
    assert (
        read_load(model, "nowhere", scores, scores.argmax(-1)) is not None
    )  # the model around it has experts
    assert read_load(nn.Linear(4, 4), "", scores, scores.argmax(-1)) is None


def test_a_watched_router_has_its_load_among_the_looks() -> None:
    torch.manual_seed(0)
    model = Mixture(push=50.0)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with watch(model, optimizer, every=1, on_finding="silent") as eyes:
        for _ in range(14):
            model(torch.randn(32, 6)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    (row,) = (i for i, site in enumerate(eyes.history.sites) if site.family == "router")
    facts = eyes.history.sites[row].facts
    assert (facts["experts"], facts["choices"], facts["rows"]) == (4, 2, 32)
    names = ("load_excess", "load_entropy", "idle_experts")
    excess, nats, idle = (eyes.history.looks[-1][row, LIVE.index(name)] for name in names)
    assert excess == pytest.approx(1.0)  # half of all choices, of at most half
    assert 0.5 < nats < 1 and idle == 0 and math.isnan(eyes.history.looks[0][row, LIVE.index("load_excess")])
