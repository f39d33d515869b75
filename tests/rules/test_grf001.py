"""GRF001 on traces written by hand: which parameters the loss cannot reach, and which cut is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import CUT


def _build_trace(*sites: Site, cuts: tuple[tuple[str, str, int], ...] = ()) -> Trace:
    """Parameters, and cuts of the graph as (path, how, order)."""
    made: Any = {"graph_cuts": [{"path": p, "call": 0, "how": how, "order": at} for p, how, at in cuts]}
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), np.nan), (), made if cuts else {})


def _parameter(name: str, **more: Any) -> Site:
    facts: Any = {"trainable": True, "used": True, "reachable": False, "numel": 10, "module": name, **more}
    return Site.parameter(f"{name}.weight", "Linear", facts)


def _judge(*sites: Site, cuts: tuple[tuple[str, str, int], ...] = ()) -> Finding:
    (found,) = rule("GRF001").check(_build_trace(*sites, cuts=cuts))
    return found


@pytest.mark.parametrize(
    "facts", [{"used": False}, {"reachable": True}, {"trainable": False}, {"reachable": None}]
)
def test_used_parameters_that_the_loss_reaches_and_idle_ones_are_no_fault(facts: dict[str, Any]) -> None:
    assert rule("GRF001").check(_build_trace(_parameter("b", reachable=True), _parameter("a", **facts))) == []


def test_without_a_trainable_parameter_nothing_is_judged() -> None:
    with pytest.raises(NotApplicable, match="no parameter is trainable"):
        rule("GRF001").check(_build_trace(_parameter("a", trainable=False)))


def test_the_cut_is_named_with_what_lies_behind_it() -> None:
    lost, learning = _parameter("a", used_at=2), _parameter("b", reachable=True, numel=30)
    found = _judge(lost, learning, cuts=(("net.encoder", "detach", 3),))
    assert found.severity == "error" and found.direction == "blocked"
    assert found.cause == (
        "the graph is cut by detach in net.encoder: 1 trainable parameters before it are executed but get no "
        "gradient"
    )
    assert found.sites == ("net.encoder", "a.weight")
    assert [(e.value, e.unit) for e in found.evidence] == [(1, "of 2"), (0.25, ""), ("detach", "")]
    assert found.weight == CUT.weigh(0.25)
    assert [(r.cure, r.targets) for r in found.remedies] == [
        ("remove-detach", ("net.encoder",)),
        ("freeze", ("a.weight",)),
    ]


def test_without_a_cut_the_loss_reads_nothing_of_it() -> None:
    found = _judge(_parameter("a"), _parameter("b"))
    assert found.cause.startswith("the loss reads nothing that a makes: 2 trainable parameters are executed")
    assert found.sites == ("a.weight", "b.weight") and len(found.evidence) == 2
    assert found.weight == CUT.weigh(1.0)
    assert (found.remedies[0].cure, found.remedies[0].targets) == ("use-output", ("a",))


def test_a_single_number_is_the_whole_model() -> None:
    assert _judge(_parameter("a", numel=1)).weight == CUT.weigh(1.0)


def test_a_parameter_of_the_model_itself_is_named_by_its_own_name() -> None:
    assert "reads nothing that scale.weight makes" in _judge(_parameter("scale", module="")).cause


def test_parameters_of_unknown_size_have_no_share() -> None:
    assert _judge(Site.parameter("a", "", {"trainable": True, "used": True, "reachable": False})).weight == (
        CUT.weigh(0.0)
    )


@pytest.mark.parametrize(
    ("cuts", "named"),
    [
        ((("early", "detach", 4), ("at", "detach", 5), ("late", "detach", 6)), "at"),
        ((("early", "detach", 4), ("late", "detach", 6)), "late"),
        ((("weak", "comparison", 5), ("item", "item", 6), ("strong", "argmax", 7)), "strong"),
        ((("early", "detach", 4), ("weak", "item", 5), ("weaker", "comparison", 6)), "weak"),
        ((("early", "detach", 3), ("earlier", "detach", 4)), "early"),
        ((("", "detach", 9),), "(model)"),
    ],
)
def test_the_first_cut_after_the_last_use_is_named(
    cuts: tuple[tuple[str, str, int], ...], named: str
) -> None:
    """Of what is lost, `b` is used last, at operation 5."""
    found = _judge(_parameter("a", used_at=1), _parameter("b", used_at=5), _parameter("c"), cuts=cuts)
    assert found.sites[0] == named == found.evidence[2].site


def test_a_use_at_an_unknown_time_lies_before_the_first_operation() -> None:
    found = _judge(_parameter("a"), cuts=(("first", "detach", 0), ("second", "detach", 1)))
    assert found.sites[0] == "first"


@pytest.mark.parametrize(
    ("how", "words", "cure"),
    [
        ("argmax", "argmax", "straight-through"),
        ("comparison", "comparison", "straight-through"),
        ("data", ".data", "remove-detach"),
        ("numpy", ".numpy()", "remove-detach"),
        ("no_grad", "no_grad", "remove-detach"),
    ],
)
def test_the_remedy_follows_how_the_graph_is_left(how: str, words: str, cure: str) -> None:
    found = _judge(_parameter("a"), cuts=(("here", how, 0),))
    assert f"is cut by {words} in here" in found.cause
    assert found.remedies[0].cure == cure


def test_at_most_twelve_places_are_listed() -> None:
    found = _judge(*[_parameter(f"p{k}") for k in range(20)], cuts=(("here", "detach", 0),))
    assert found.sites == ("here", *(f"p{k}.weight" for k in range(11)))
    assert len(found.remedies[1].targets) == 12
    assert found.evidence[0].value == 20


class Pooled(nn.Module):
    """An encoder that gives its states and what is made of them, or of the input beside them."""

    def __init__(self, of_states: bool) -> None:
        super().__init__()
        self.encode, self.pool, self.of_states = nn.Linear(8, 8), nn.Linear(8, 8), of_states

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.encode(x))
        return h, torch.tanh(self.pool(h if self.of_states else x))


@pytest.mark.parametrize("of_states", [True, False])
def test_a_further_result_is_spare_if_it_is_made_of_the_one_that_is_read(of_states: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = Pooled(of_states), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.body(x)[0])
            return out

    torch.manual_seed(0)
    batch = torch.randn(32, 8), torch.randint(0, 3, (32,))
    (found,) = unvanish.check(Net(), batch, nn.CrossEntropyLoss(), select=["GRF001"]).findings
    assert found.severity == ("note" if of_states else "error")
    assert "body.pool" in found.cause


class Step(nn.Module):
    """A block that moves two streams, of which the second is read by the next block alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.first(x) + z)
        return x + h, z + self.second(h)


class Stack(nn.Module):
    """Such blocks; `forget`: the part that is left out of all but the first block."""

    def __init__(self, names: str, forget: bool = False) -> None:
        super().__init__()
        blocks = [Step() for _ in range(3)]
        if names == "list":
            self.blocks: Any = nn.ModuleList(blocks)
        else:
            self.blocks = nn.ModuleList([nn.ModuleDict({"inside": b}) for b in blocks])
        self.head, self.forget = nn.Linear(8, 3), forget

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for k, block in enumerate(self.blocks):
            h, after = (block if isinstance(block, Step) else block["inside"])(x, z)
            x, z = h, z if self.forget and k else after
        out: Tensor = self.head(x)
        return out


class Heads(nn.Module):
    """A head for each depth; the loss reads those it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layer, head in zip(self.body, self.heads, strict=True):
            x = torch.tanh(layer(x))
            found.append(head(x))
        return found


@pytest.mark.parametrize(
    ("net", "severity"),
    [
        (lambda: Stack("list"), "note"),
        (lambda: Stack("nested"), "note"),
        (lambda: Stack("list", forget=True), "error"),  # the middle block's too: the stream was lost
    ],
)
def test_what_the_last_block_makes_for_a_next_one_is_no_fault(net: Any, severity: str) -> None:
    torch.manual_seed(0)
    batch = torch.randn(32, 8), torch.randint(0, 3, (32,))
    (found,) = unvanish.check(net(), batch, nn.CrossEntropyLoss(), select=["GRF001"]).findings
    assert found.severity == severity and "blocks.2" in found.cause + "".join(found.sites)


def test_a_last_head_that_the_loss_forgot_is_a_fault() -> None:
    def loss(out: list[Tensor], y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out[0], y) + nn.functional.cross_entropy(out[1], y)

    torch.manual_seed(0)
    batch = torch.randn(32, 8), torch.randint(0, 3, (32,))
    (found,) = unvanish.check(Heads(), batch, loss, select=["GRF001"]).findings
    assert found.severity == "error" and any("heads.2" in site for site in found.sites)
