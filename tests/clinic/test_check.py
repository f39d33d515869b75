"""`check`: selection and settings, consequences under causes, confirmation by experiment, healthy models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.config import ConfigError
from unvanish.clinic.rounds import fold, rank
from unvanish.core.diagnosis import Case, Finding
from unvanish.core.omissions import Omissions
from unvanish.probes import CheckError
from unvanish.rules import rules

CONFIRMED = [
    "ACT001",
    "ACT002",
    "ACT003",
    "INI001",
    "INI002",
    "INP001",
    "NRM001",
    "PRC001",
    "PRC002",
    "REC001",
    "REC002",
]


def finding(code: str, weight: float = 1.0, severity: Any = "error") -> Finding:
    return Finding(code, code.lower(), severity, "because", weight=weight)


def sick(code: str) -> Case:
    return rules()[code].case("sick")


def test_a_loss_of_unknown_cause_yields_to_any_other_finding() -> None:
    unknown = finding("DEP003", 99, "warning")
    for code in ("OUT003", "GRF001", "ATT001"):
        (head,) = fold(rank([unknown, finding(code, 1, "warning")]))
        assert head.code == code and [f.code for f in head.consequences] == ["DEP003"]
    shown = fold(rank([unknown, finding("GRF003", 1, "note")]))  # a note explains no warning
    assert [f.code for f in shown] == ["DEP003", "GRF003"]


def test_weights_that_lose_nothing_are_no_cause() -> None:
    class Half(nn.Module):
        """Half of an orthogonal layer beside half of its input, both damped."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(40, 40) for _ in range(14))
            self.head = nn.Linear(40, 5)
            for layer in self.layers.children():
                nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Any:
            for layer in self.layers:
                x = torch.cat([layer(x)[:, :20] * 0.2, x[:, :20] * 0.2], -1)
            return self.head(x)

    torch.manual_seed(0)
    batch = torch.randn(24, 40), torch.randint(0, 5, (24,))
    assert unvanish.check(Half(), batch, nn.CrossEntropyLoss()).codes() == ("DEP003",)


def test_consequences_are_folded_under_their_cause() -> None:
    (head,) = fold(rank([finding("DEP001", 9), finding("ACT002", 5)]))
    assert head.code == "ACT002" and [c.code for c in head.consequences] == ["DEP001"]


def test_of_two_that_explain_each_other_the_worse_leads() -> None:
    assert {"INI001"} <= rules()["ACT002"].explains
    table = {("ACT001", "OUT001"): 0}
    for pair in table:
        assert pair[1] in rules()[pair[0]].explains and pair[0] in rules()[pair[1]].explains
        for first, second in (pair, pair[::-1]):
            (head,) = fold(rank([finding(first, 9), finding(second, 1)]))
            assert head.code == first


def test_nothing_is_lost_or_repeated_by_folding() -> None:
    codes = list(rules())
    shown = fold(rank([finding(code, i % 7) for i, code in enumerate(codes)]))

    def count(found: tuple[Finding, ...]) -> list[str]:
        return [c for f in found for c in (f.code, *count(f.consequences))]

    assert sorted(count(shown)) == sorted(codes)


def test_a_note_explains_no_warning() -> None:
    shown = fold(rank([finding("NUM001", 9, "note"), finding("INI001", 1, "warning")]))
    assert [f.code for f in shown] == ["INI001", "NUM001"]


def test_select_ignore_and_settings() -> None:
    case = sick("ACT002")
    args = (case.model, case.batch, case.loss)
    assert unvanish.check(*args, select=["INI"]).healthy
    assert unvanish.check(*args, ignore=["ACT", "DEP001"]).healthy
    assert unvanish.check(*args, settings={"ACT002": {"limit": 100.0}}, ignore=["DEP001"]).healthy
    skipped = unvanish.check(*args, select=["INI"]).skipped
    assert {v.code for v in skipped} == {c for c in rules() if not c.startswith("INI")}
    with pytest.raises(ConfigError, match="did you mean"):
        unvanish.check(*args, select=["ACT02"])
    with pytest.raises(ConfigError, match="limit"):
        unvanish.check(*args, settings={"ACT002": {"limits": 1.0}})


def test_every_rule_gives_a_verdict() -> None:
    diagnosis = unvanish.check(nn.Linear(4, 2), torch.randn(8, 4))
    verdicts = [*diagnosis.passed, *diagnosis.not_applicable, *diagnosis.skipped]
    assert sorted(v.code for v in verdicts) == sorted(rules())
    assert all(v.reason for v in verdicts) and diagnosis.healthy


@pytest.mark.parametrize("code", CONFIRMED)
def test_the_cause_is_confirmed_by_experiment(code: str) -> None:
    case = sick(code)
    before = copy.deepcopy(case.model.state_dict())
    head = unvanish.check(case.model, case.batch, case.loss, **case.options).findings[0]
    assert (head.code, head.confirmed) == (code, True), head.experiment
    assert head.experiment
    assert all(torch.equal(v, before[k]) for k, v in case.model.state_dict().items())


def test_a_wrong_cause_is_not_confirmed() -> None:
    """Weights are blamed by hand for what a slope does: scaling them to a gain of one restores nothing."""
    from unvanish.probes import experiments, record

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(12))
            for layer in self.layers:
                nn.init.orthogonal_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x)) * 0.1
            return x

    torch.manual_seed(0)
    model, batch = Wrong(), torch.randn(16, 64)
    trace = record(model, batch)
    (head,) = experiments.confirm_cause((finding("INI001"),), trace, model, batch, None, Omissions())
    assert head.confirmed is False and "become" in head.experiment


def test_assert_healthy() -> None:
    case = sick("OUT002")
    with pytest.raises(AssertionError, match="double-softmax"):
        unvanish.assert_healthy(case.model, case.batch, case.loss)
    assert unvanish.assert_healthy(case.model, case.batch, case.loss, ignore=["OUT002"]).healthy
    with pytest.raises(ValueError, match="fail_on"):
        unvanish.assert_healthy(case.model, case.batch, case.loss, fail_on="bad")


def test_an_optimizer_that_is_none() -> None:
    with pytest.raises(CheckError, match="optimizer is a str"):
        unvanish.check(nn.Linear(4, 2), torch.randn(8, 4), optimizer="adam")


def test_twice_the_same() -> None:
    case = sick("ATT001")
    first, second = (unvanish.check(case.model, case.batch, case.loss) for _ in range(2))
    assert first.findings == second.findings


def test_a_gate_on_a_zero_initialised_branch_is_no_fault() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.gate = nn.Conv2d(8, 8, 1)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            branch = self.norm(self.first(x))
            return x + branch * self.gate(branch.mean((2, 3), keepdim=True)).sigmoid()

    torch.manual_seed(0)
    stem, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
    net = nn.Sequential(stem, Gated(), nn.ReLU(), Gated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    assert "GRF004" not in unvanish.check(net, torch.randn(4, 3, 9, 9), confirm=False).codes("note")


def test_a_constant_among_the_parameters_is_not_called_frozen() -> None:
    class Binned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.bins = nn.Linear(64, 64), nn.Parameter(torch.ones(()), requires_grad=False)
            self.more = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.more:
                x = torch.relu(layer(x))
            return self.layer(x) * self.bins

    batch = torch.randn(8, 64), torch.randint(0, 64, (8,))
    net = Binned()
    assert "GRF003" not in unvanish.check(net, batch, nn.CrossEntropyLoss()).codes("note")
    net.more[0].requires_grad_(False)
    assert "GRF003" in unvanish.check(net, batch, nn.CrossEntropyLoss()).codes("note")


class Joined(nn.Module):
    """Blocks of two parallel layers, multiplied: `act` of each, perhaps beside a stream."""

    def __init__(self, act: Any, blocks: int = 12, width: int = 48, stream: bool = False) -> None:
        super().__init__()
        self.v, self.g = (nn.ModuleList(nn.Linear(width, width) for _ in range(blocks)) for _ in range(2))
        self.act, self.stream, self.head = act, stream, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        for v, g in zip(self.v, self.g, strict=True):
            made = self.act(v(x)) * self.act(g(x))
            x = x + made / 4 if self.stream else made
        return self.head(x)


@pytest.mark.parametrize(
    ("act", "stream", "code", "kind"),
    [
        (torch.sigmoid, False, "ACT002", "sigmoid"),
        (lambda x: x, False, "INI001", "linear"),
        (torch.sigmoid, True, None, ""),
    ],
)
def test_what_parallel_layers_lose_is_named(act: Any, stream: bool, code: str | None, kind: str) -> None:
    torch.manual_seed(0)
    net, batch = Joined(act, stream=stream), (torch.randn(32, 48), torch.randint(0, 4, (32,)))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss())
    assert found.codes()[:1] == ((code,) if code else ())
    if code:
        sites = {s.label: s for s in found.trace.sites}
        assert {sites[label].kind for label in found.findings[0].sites} == {kind}
        assert unvanish.forecast(net, (48,)).codes()[:1] == (code,)


class Heads(nn.Module):
    """Two heads on one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.main, self.spare = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.relu(self.first(x))
        return {"main": self.main(h), "spare": self.spare(h)}


def test_a_head_that_the_loss_does_not_read_is_no_cut() -> None:
    batch = torch.randn(16, 8), torch.randint(0, 4, (16,))
    found = unvanish.check(Heads(), batch, lambda o, y: nn.functional.cross_entropy(o["main"], y)).findings[0]
    assert found.code == "GRF001" and found.cause.startswith("the loss reads nothing that spare makes")
    assert found.remedies[0].cure == "use-output"


def test_a_cut_within_the_loss_is_said_to_be_there() -> None:
    batch = torch.randn(16, 8), torch.randint(0, 4, (16,))

    def loss(o: dict[str, Tensor], y: Tensor) -> Tensor:
        return torch.tensor(nn.functional.cross_entropy(o["main"], y).item(), requires_grad=True)

    found = unvanish.check(Heads(), batch, loss).findings[0]
    assert found.code == "GRF001" and "cut by .item() in the loss" in found.cause
