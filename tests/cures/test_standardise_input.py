"""Standardising: several inputs each by itself, and logarithms of what spans decades."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.clinic.check import check
from unvanish.clinic.prescription import Prescription, apply
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures
from unvanish.probes.features import find_units, scale_by_logs

CE = nn.CrossEntropyLoss()


class Two(nn.Module):
    """A table and a number a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([x, t[:, None]], 1))
        return out


def draw() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(64, 4), 1000 * torch.rand(64), torch.randint(0, 2, (64,))


def plan(model: nn.Module, batch: Any) -> tuple[Remedy, ...]:
    found = check(model, batch, CE, confirm=False, theory=False)
    return cures()["standardise-input"].plan(found.trace, Remedy("standardise-input", (), ""))


def test_of_several_inputs_the_one_that_is_off_is_standardised() -> None:
    x, t, y = draw()
    model = Two()
    [remedy] = plan(model, ((x, t), y))
    assert remedy.parameters["place"] == 1 and 200 < remedy.parameters["std"] < 400
    expected = Two.forward(model, x, (t - remedy.parameters["mean"]) / remedy.parameters["std"])
    receipt = apply(model, [remedy], batch=((x, t), y), loss=CE)
    for output in (model(x, t), model(x, t=t), model(x=x, t=t)):
        assert torch.allclose(output, expected, atol=1e-5)
    with pytest.raises(RuntimeError, match="'t'"):
        model(x)
    receipt.undo()
    assert not torch.allclose(model(x, t), expected, atol=1e-2)


def test_an_input_by_its_name_is_standardised() -> None:
    x, t, y = draw()
    model = Two()
    batch = {"x": x, "t": t}
    found = check(model, batch, lambda o: CE(o, y), confirm=False, theory=False)
    [remedy] = cures()["standardise-input"].plan(found.trace, Remedy("standardise-input", (), ""))
    assert remedy.parameters["argument"] == "t"
    apply(model, [remedy], batch=batch, loss=lambda o: CE(o, y))
    assert torch.equal(model(x, t), model(**batch))


def test_masks_beside_a_large_input_stay() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.layer(x * mask)
            return out

    x, _, y = draw()
    mask = (torch.rand(64, 4) < 0.98).float()
    [remedy] = plan(Masked(), ((300 * x + 4000, mask), y))
    assert remedy.parameters["place"] == 0


def test_what_spans_decades_is_evened_out_by_its_logarithm() -> None:
    torch.manual_seed(1)
    amounts, ages, flags = torch.exp(2 * torch.randn(256)), 40 + 10 * torch.randn(256), torch.rand(256) < 0.3
    x = torch.stack([3000 * amounts, ages, flags.float(), -amounts], 1)
    units = find_units(x, 1)
    assert units[0] > 0 and units[1:] == (0.0, 0.0, 0.0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    [remedy] = plan(net, (x, torch.randint(0, 2, (256,))))
    seen: list[Tensor] = []
    net[0].register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    apply(net, [remedy], batch=(x, torch.zeros(256).long()), loss=CE)
    net(x)
    spread = torch.quantile(seen[0][:, 0], torch.tensor([0.05, 0.5, 0.95]))
    assert float((spread[2] - spread[1]) / (spread[1] - spread[0])) < 3  # of the amounts themselves: 25
    own: dict[str, Any] = {}
    exec(Prescription((remedy,)).script(), own)
    assert torch.allclose(own["standardise_input"](x), seen[0], atol=1e-4)


def test_even_and_heavy_features_get_no_logarithm() -> None:
    torch.manual_seed(2)
    income = 50_000 + 9_000 * torch.randn(128)
    income[7] = 1e9  # an outlier is no span
    assert find_units(torch.stack([income, torch.rand(128), torch.randn(128).exp_().neg_()], 1), 1) == ()
    assert find_units(torch.exp(3 * torch.randn(8, 3)), 1) == ()  # too few rows to tell


def test_logs_leave_other_features_and_negative_values_finite() -> None:
    x = torch.tensor([[0.0, -5.0], [9.0, 2.0], [-3.0, 1.0]])
    scaled = scale_by_logs(x, torch.tensor([1.0, 0.0]))
    assert torch.equal(scaled[:, 1], x[:, 1])
    assert scaled[:, 0].tolist() == pytest.approx([0.0, 2.302585, 0.0])


def test_two_arguments_are_two_functions_by_hand() -> None:
    one = Remedy("standardise-input", (), "", "retrain", {"mean": 1.0, "std": 2.0, "place": 0})
    two = Remedy("standardise-input", (), "", "retrain", {"mean": 3.0, "std": 4.0, "place": 1})
    own: dict[str, Any] = {}
    script = Prescription((one, two)).script()
    exec(script, own)
    assert float(own["standardise_input"](torch.tensor(5.0))) == 2.0
    assert float(own["standardise_input_2"](torch.tensor(7.0))) == 1.0
    assert "argument 2 of the forward" in script
