"""INP001 on traces written by hand: where an input is out of scale, and when that harms the first layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Site, Trace
from unvanish.rules import rule

NAMES = ("forward_rms", "forward_max", "spread", "saturated")
DATA_BASE = 8.0  # weight of a fault of the data, of size 0


def _build_input(rms: float, mean: float = 0.0, std: float = 1.0, name: str = "x", **facts: Any) -> Any:
    return Site.input(name, {"floating": True, "mean": mean, "std": std, **facts}), {"forward_rms": rms}


def _build_node(family: str, order: int, name: str = "", **values: float) -> Any:
    own = {"forward_rms": 1.0, "spread": 1.0, **values}
    return Site.node(name or f"{family}{order}", family, 0, {"family": family, "order": order}), own


def _build_trace(*parts: Any) -> Trace:
    values = np.full((1, len(parts), len(NAMES)), np.nan)
    for i, (_, own) in enumerate(parts):
        for name, value in own.items():
            values[0, i, NAMES.index(name)] = value
    return Trace(tuple(site for site, _ in parts), values, statistics=NAMES)


def _judge(*parts: Any, **settings: float) -> Finding | None:
    found = rule("INP001").check(_build_trace(*parts), **settings)
    return found[0] if found else None


LAYER = _build_node("layer", 0)
FLAT = _build_node("activation", 1, saturated=0.5)


@pytest.mark.parametrize(("rms", "fires"), [(20.0, False), (20.1, True)])
def test_an_input_is_large_above_twenty(rms: float, fires: bool) -> None:
    assert (_judge(_build_input(rms), LAYER, FLAT) is not None) == fires
    assert _judge(_build_input(rms), LAYER, FLAT, limit=30.0) is None


@pytest.mark.parametrize(
    ("mean", "std", "fires"),
    [(5.0, 1.0, False), (5.1, 1.0, True), (-5.1, 1.0, True), (2.0, 0.1, False), (2.1, 0.1, True),
     (5.1, 0.0, False), (9.0, 3.0, False), (15.3, 3.0, True)],
)  # fmt: skip
def test_an_offset_is_five_deviations_of_a_mean_beyond_two(mean: float, std: float, fires: bool) -> None:
    found = _judge(_build_input(6.0, mean, std), LAYER, FLAT)
    assert (found is not None) == fires
    if found:
        assert found.evidence[1].value == pytest.approx(abs(mean) / std)
        assert _judge(_build_input(6.0, mean, std), LAYER, FLAT, offset=30.0) is None


def test_the_finding_holds_the_numbers_and_the_remedies() -> None:
    found = _judge(_build_input(50.0, 30.0, 40.0), _build_node("layer", 0, forward_rms=12.0), FLAT)
    assert found is not None and found.severity == "error" and found.direction == "none"
    assert found.cause == "the input has mean 30 and size 50: 50% of the units are saturated in layer0"
    assert found.sites == ("x", "layer0")
    assert [(e.value, e.limit, e.site) for e in found.evidence] == [
        (50.0, "< 20", "x"), (0.75, "< 5", "x"), (12.0, "about 1", "layer0"),
    ]  # fmt: skip
    standardise, normalise = found.remedies
    assert standardise.targets == ("x",) and standardise.parameters == {"mean": 30.0, "std": 40.0}
    assert normalise.targets == ("layer0",) and normalise.parameters == {"kind": "batch"}
    assert found.weight == pytest.approx(DATA_BASE + math.log(50.0))


def test_a_small_input_with_an_offset_weighs_the_base() -> None:
    found = _judge(_build_input(0.5, 5.1), LAYER, FLAT)
    assert found is not None and found.weight == DATA_BASE
    larger = _judge(_build_input(1.5, 5.1), LAYER, FLAT)
    assert larger is not None and larger.weight == pytest.approx(DATA_BASE + math.log(1.5))


@pytest.mark.parametrize(("rms", "severity"), [(100.0, "warning"), (101.0, "error")])
def test_five_times_the_limit_is_an_error(rms: float, severity: str) -> None:
    found = _judge(_build_input(rms), _build_node("layer", 0, forward_rms=60.0, forward_max=321.0))
    assert found is not None and found.severity == severity
    assert "activations reach 321 in layer0" in found.cause


@pytest.mark.parametrize(("share", "fires"), [(0.3, False), (0.31, True)])
def test_three_tenths_of_flat_units_are_harm(share: float, fires: bool) -> None:
    found = _judge(_build_input(30.0), LAYER, _build_node("activation", 1, saturated=share))
    assert (found and found.severity) == ("error" if fires else None)


@pytest.mark.parametrize(("order", "fires"), [(3, False), (4, True), (7, True), (8, False)])
def test_units_up_to_three_operations_after_the_first_layer_count(order: int, fires: bool) -> None:
    units = _build_node("activation", order, saturated=0.5)
    assert (_judge(_build_input(30.0), _build_node("layer", 4), units) is not None) == fires


def test_the_worst_activation_near_the_first_layer_counts() -> None:
    units = [_build_node("activation", 1 + i, saturated=s) for i, s in enumerate((0.1, 0.6, 0.4))]
    found = _judge(_build_input(30.0), LAYER, *units)
    assert found is not None and "60% of the units" in found.cause


@pytest.mark.parametrize(("rms", "fires"), [(5.0, False), (5.1, True)])
def test_a_quarter_of_the_limit_passed_on_is_harm(rms: float, fires: bool) -> None:
    assert (_judge(_build_input(30.0), _build_node("layer", 0, forward_rms=rms)) is not None) == fires


@pytest.mark.parametrize(("spread", "fires"), [(0.05, False), (0.049, True)])
def test_samples_that_look_alike_are_harm(spread: float, fires: bool) -> None:
    found = _judge(_build_input(30.0), _build_node("layer", 0, spread=spread))
    assert (found and found.severity) == ("warning" if fires else None)
    assert found is None or "the samples differ too little in layer0" in found.cause


def test_a_recurrent_first_layer_is_always_harmed() -> None:
    found = _judge(_build_input(30.0), _build_node("recurrent", 0))
    assert found is not None and "driven to their ends" in found.cause and found.severity == "warning"


def test_the_first_layer_is_the_one_that_runs_first() -> None:
    late, early = _build_node("layer", 5, forward_rms=9.0), _build_node("layer", 2, forward_rms=9.0)
    found = _judge(_build_input(30.0), late, _build_node("view", 0), early)
    assert found is not None and found.sites == ("x", "layer2")
    assert _judge(_build_input(30.0), _build_node("activation", 0, saturated=0.9)) is None


@pytest.mark.parametrize(
    ("families", "fires"),
    [
        (["norm", "layer"], False),
        (["layer", "norm"], False),
        (["layer", "view", "norm"], False),
        (["layer", "view", "view", "norm"], True),
        (["layer", "activation", "norm"], True),
        (["layer", "layer", "norm"], True),
    ],
)
def test_a_normalisation_before_the_first_activation_takes_the_scale_away(
    families: list[str], fires: bool
) -> None:
    nodes = [_build_node(f, i, forward_rms=9.0) for i, f in enumerate(families)]
    for shown in (nodes, nodes[::-1]):  # in the order of their runs, whatever that of the sites
        assert (_judge(_build_input(30.0), *shown) is not None) == fires


def test_a_normalisation_before_the_first_layer_is_the_first() -> None:
    nodes = [_build_node("norm", 3), _build_node("layer", 1, forward_rms=9.0), _build_node("activation", 2)]
    assert _judge(_build_input(30.0), *nodes) is not None


def test_the_largest_of_several_inputs_is_described_and_all_are_named() -> None:
    inputs = [_build_input(30.0, name="a"), _build_input(70.0, name="b"), _build_input(1.0, name="c")]
    found = _judge(*inputs, LAYER, FLAT)
    assert found is not None and found.sites == ("a", "b", "layer0")
    assert "size 70:" in found.cause and found.evidence[0].site == "b"
    assert found.remedies[0].targets == ("a",)


def test_an_input_without_mean_is_described_without() -> None:
    site, values = _build_input(30.0)
    bare = Site.input("x", {"floating": True})
    found = _judge((bare, values), LAYER, FLAT)
    assert found is not None and found.cause.startswith("the input has mean nan and size 30")
    assert found.evidence[1].value == 0.0 and site.path == "x"
    for facts, ratio in (({"mean": 6.0}, 6.0), ({"std": 0.1}, 0.0)):
        part: Any = Site.input("x", {"floating": True, **facts}), values
        found = _judge(part, LAYER, FLAT)
        assert found is not None and found.evidence[1].value == pytest.approx(ratio)


def test_whole_numbers_and_unknown_sizes_are_not_judged() -> None:
    for part in (_build_input(30.0, floating=False), _build_input(math.inf), _build_input(math.nan)):
        with pytest.raises(NotApplicable, match="no input is a float tensor"):
            _judge(part, LAYER, FLAT)


class Sized(nn.Module):
    """Turns whole numbers into floats, scaled or not, and reads them."""

    def __init__(self, scale: float, recurrent: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.read: Any = nn.LSTM(1, 16, batch_first=True) if recurrent else nn.Linear(12, 16)
        self.head, self.scale, self.recurrent = nn.Linear(16, 3), scale, recurrent

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / self.scale
        h = self.read(x[..., None])[0][:, -1] if self.recurrent else torch.relu(self.read(x))
        out: Tensor = self.head(h)
        return out


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize(("scale", "fires"), [(1.0, True), (3000.0, False)])
def test_ids_that_are_turned_into_floats_are_named(recurrent: bool, scale: float, fires: bool) -> None:
    model = Sized(scale, recurrent)
    torch.manual_seed(0)
    batch = torch.randint(0, 3000, (32, 12)), torch.randint(0, 3, (32,))
    found = [*unvanish.check(model, batch, nn.CrossEntropyLoss(), confirm=False).walk()]
    texts = [f.cause for f in found if f.code == "INP001"]
    assert bool(texts) == fires and all("were they ids?" in text for text in texts)


@pytest.mark.parametrize(("divided", "bias", "drowned"), [(2, True, "0"), (2, False, "2"), (1, False, "")])
def test_an_input_that_was_divided_twice_is_drowned_by_the_first_bias_that_it_meets(
    divided: int, bias: bool, drowned: str
) -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (32, 400)).float()
    net = nn.Sequential(nn.Linear(400, 32, bias=bias), nn.ReLU(), nn.Linear(32, 5))
    batch = pixels / 255**divided, torch.arange(32) % 5
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), confirm=False, select=["INP001"]).findings
    assert [f.sites[-1] for f in found] == ([drowned] if drowned else [])


@pytest.mark.parametrize(("factor", "fires"), [(1 / 255, True), (255.0, True), (2.0, False)])
def test_what_the_model_scales_by_itself(factor: float, fires: bool) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(torch.relu(self.first(x * factor)).mean((2, 3)))
            return out

    torch.manual_seed(0)
    batch = torch.rand(16, 1, 12, 12), torch.arange(16) % 3
    found = unvanish.check(Scaled(), batch, nn.CrossEntropyLoss()).findings
    assert [f.code for f in found if f.severity != "note"][:1] == (["INP001"] if fires else [])
    assert not fires or "what the model makes of its input" in found[0].cause


class Placed(nn.Module):
    """Vectors of tokens, and something added for their places."""

    def __init__(self, places: Callable[[int], Tensor], factor: float = 1.0) -> None:
        super().__init__()
        self.tokens, self.first, self.last = nn.Embedding(30, 24), nn.Linear(24, 24), nn.Linear(24, 3)
        self.places, self.factor = places, factor

    def forward(self, x: Tensor) -> Tensor:
        h = self.factor * self.tokens(x) + self.places(x.shape[1])
        out: Tensor = self.last(torch.relu(self.first(h)).mean(1))
        return out


@pytest.mark.parametrize(
    ("places", "factor", "codes"),
    [
        (lambda n: torch.arange(float(n))[:, None], 1.0, ("INP001",)),
        (lambda n: torch.arange(float(n))[:, None] / n, 1.0, ()),
        (lambda n: torch.sin(torch.arange(float(n))[:, None] / 1.5 ** torch.arange(24.0)), 0.02, ()),
        (lambda n: torch.zeros(n, 24), 30.0, ()),
    ],
)
def test_positions_as_they_are_drown_the_tokens(
    places: Callable[[int], Tensor], factor: float, codes: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    batch = torch.randint(0, 30, (16, 150)), torch.randint(0, 3, (16,))
    found = unvanish.check(
        Placed(places, factor), batch, nn.CrossEntropyLoss(), confirm=False, select=["INP001"]
    )
    assert found.codes() == codes


def test_samples_of_one_number_are_said_to_be() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 8))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layers(x - x.mean(1, keepdim=True))
            return out

    torch.manual_seed(0)
    level = torch.randn(32, 1)
    found = [
        unvanish.check(
            Centred(), (x, torch.randn(32, 8)), nn.MSELoss(), confirm=False, select=["INP001"]
        ).findings
        for x in (level.expand(32, 24).clone(), level + torch.randn(32, 24))
    ]
    assert ["one number throughout" in f.cause for f in found[0]] == [True]
    assert found[1] == ()
