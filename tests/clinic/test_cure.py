"""`cure`: every rule's sick model is healed and proven, nobody's model is touched, and failure is told
honestly.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.prescription import Prescription
from unvanish.clinic.proof import behind, compared, judged, trained, training, undecided
from unvanish.core.cured import Proof
from unvanish.probes import CheckError
from unvanish.rules import rules
from unvanish.surgery.surgery import SurgeryError

CODES = [
    c for c, rule in rules().items() if c != "GRF003" and "history" not in rule.needs
]  # GRF003 is a note
CE = nn.CrossEntropyLoss()


def sigmoid_net(depth: int = 12) -> nn.Module:
    torch.manual_seed(0)
    parts = [p for _ in range(depth) for p in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*parts, nn.Linear(16, 3))


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 16, generator=generator), torch.randint(0, 3, (n,), generator=generator)


@pytest.mark.parametrize("code", CODES)
def test_the_sick_model_of_every_rule_is_cured(code: str) -> None:
    case = rules()[code].case("sick")
    held = {k: v for k, v in case.options.items() if k == "optimizer"}
    before = {n: t.clone() for n, t in case.model.state_dict().items()}
    cured = unvanish.cure(case.model, case.batch, case.loss, **held)
    assert cured.success, cured.reason
    assert code in cured.proof.codes_before
    assert cured.proof.codes_after == ()
    assert cured.proof.towards_zero
    assert cured.proof.training != "worse"
    for name, value in case.model.state_dict().items():
        assert torch.equal(value, before[name]) or bool(torch.isnan(value).any()), name
    again = unvanish.check(cured.model, case.batch, cured.loss, **({"optimizer": None} if held else {}))
    assert again.healthy or held


@pytest.mark.parametrize("code", ["ACT002", "INI001", "DEP002", "NRM002", "REC002", "OUT003"])
def test_the_prescription_does_to_the_user_s_model_what_it_did_to_the_copy(code: str, tmp_path: Any) -> None:
    case = rules()[code].case("sick")
    cured = unvanish.cure(case.model, case.batch, case.loss)
    path = cured.prescription.save(tmp_path / "cure.yaml")
    unvanish.apply(case.model, path, batch=case.batch, loss=case.loss)
    ours, theirs = case.model.state_dict(), cured.model.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-6), name
    assert unvanish.check(case.model, case.batch, case.loss).healthy


def test_a_user_s_own_class_with_functional_calls_is_cured() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(16, 16) for _ in range(14)), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            return self.head(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Net()
    cured = unvanish.cure(net, batch(), CE)
    assert cured.success
    assert type(cured.model) is Net
    assert cured.proof.losses_after[-1] < 0.5 * cured.proof.losses_before[-1]


def test_a_healthy_model_is_left_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    cured = unvanish.cure(net, batch(), CE)
    assert cured.success
    assert not cured.prescription
    assert "nothing is wrong" in cured.reason
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), cured.model.parameters(), strict=True))


def test_a_trained_model_keeps_its_function() -> None:
    net = sigmoid_net()
    optimizer = torch.optim.Adam(net.parameters())
    CE(net(batch()[0]), batch()[1]).backward()
    optimizer.step()
    assert trained(net, optimizer)
    cured = unvanish.cure(net, batch(), CE, optimizer=optimizer)
    assert all(r.safety == "exact" for r in cured.prescription.remedies)
    assert torch.allclose(cured.model(batch()[0]), net(batch()[0]), atol=1e-5)
    assert cured.success or "retrain" in cured.reason or "none of" in cured.reason
    allowed = unvanish.cure(net, batch(), CE, optimizer=optimizer, allow="retrain")
    assert allowed.success


def test_batch_statistics_that_have_counted_tell_a_trained_model() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert not trained(net)
    for _ in range(3):
        net(torch.randn(8, 4))
    assert trained(net)


def test_nothing_helps_is_said() -> None:
    """A graph cut through NumPy cannot be mended from outside."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.from_numpy(torch.tanh(self.layer(x)).detach().numpy().copy())
            return self.head(h)  # type: ignore[no-any-return]

    net = Net()
    cured = unvanish.cure(net, batch(), CE)
    assert not cured.success or all(r.cure == "freeze" for r in cured.prescription.remedies)
    if not cured.success:
        assert cured.reason
        assert not cured.prescription
    assert str(cured)


def test_the_budget_is_kept_and_told() -> None:
    cured = unvanish.cure(sigmoid_net(30), batch(), CE, budget=1e-6)
    assert not cured.success
    assert "time ran out" in cured.reason


def test_pruning_never_returns_what_was_rejected_by_itself() -> None:
    from unvanish.clinic.cure import Search

    model, data, loss = sigmoid_net(), batch(), nn.CrossEntropyLoss()
    before = unvanish.check(model, data, loss)
    search = Search(model, data, loss, None, before, frozenset({"exact", "retrain"}), math.inf, 60, 0)
    table = {r.cure: r for r in before.findings[0].remedies}
    more = [table["swap-activation"], table["add-skips"]]
    both = search._applied(search._copy(), more)
    assert both is not None and both.diagnosis.healthy
    lean = frozenset(r.cure for r in search._pruned(both).done)
    assert len(lean) == 1
    search.rejected = {lean}
    assert frozenset(r.cure for r in search._pruned(both).done) != lean


def test_the_process_is_as_before() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    unvanish.cure(sigmoid_net(6), batch(), CE)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), wanted)
    state = torch.get_rng_state()
    net = sigmoid_net(6)
    torch.set_rng_state(state)
    unvanish.cure(net, batch(), CE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in net.parameters())


def test_a_model_with_its_own_loss_and_keywords() -> None:
    class Out(dict[str, Tensor]):
        @property
        def loss(self) -> Tensor:
            return self["loss"]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = sigmoid_net(14)

        def forward(self, x: Tensor, y: Tensor) -> Out:
            z = self.body(x)
            return Out(loss=CE(z, y), logits=z)

    x, y = batch()
    cured = unvanish.cure(Net(), {"x": x, "y": y})
    assert cured.success


def test_a_model_that_cannot_be_copied_is_refused_with_the_reason() -> None:
    import threading

    net = sigmoid_net()
    net.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(SurgeryError, match=r"cannot be copied \(TypeError: .*lock.*copy\.deepcopy\(model\)"):
        unvanish.cure(net, batch(), CE)


def test_wrapped_models_are_refused_with_the_way_out() -> None:
    with pytest.raises(SurgeryError, match="module inside"):
        unvanish.cure(nn.DataParallel(sigmoid_net(2)), batch(), CE)


def test_wrong_calls_are_named() -> None:
    with pytest.raises(CheckError, match="allow holds"):
        unvanish.cure(sigmoid_net(2), batch(), CE, allow="everything")
    with pytest.raises(SurgeryError, match=r"not a torch\.nn\.Module"):
        unvanish.cure("net", batch(), CE)


def test_the_reports_say_what_happened(tmp_path: Any) -> None:
    cured = unvanish.cure(sigmoid_net(), batch(), CE, name="<b>my net</b>")
    text = str(cured)
    for word in (
        "cured",
        "prescription",
        "proof",
        "training",
        "by hand, in PyTorch",
        *(r.cure for r in cured.prescription.remedies),
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100
    page = cured.save(tmp_path / "cure.html").read_text()
    assert "&lt;b&gt;my net" in page
    assert "<b>my net" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert Prescription.read(cured.prescription.yaml()) == Prescription.read(cured.prescription.yaml())
    assert cured._repr_html_().startswith("<div")


# -- the parts of a proof


@pytest.mark.parametrize(
    ("before", "after", "comparable", "wanted"),
    [
        ((2.0, 1.9, 1.8), (2.0, 1.0, 0.1), True, "better"),
        ((2.0, 1.0, 0.1), (2.0, 1.9, 1.8), True, "worse"),
        ((2.0, 1.0, 0.1), (2.0, 1.0, 0.15), True, "no effect"),
        ((1e30, 1e20, 1e10), (2.0, 1.0, 0.5), True, "better"),
        ((2.0, 1.0, 0.1), (2.0, math.nan), True, "worse"),
        ((2.0, math.nan), (2.0, 1.0, 0.5), True, "better"),
        ((math.nan,), (math.inf,), True, "no effect"),
        ((0.5, 0.5, 0.5), (9.0, 5.0, 1.0), False, "better"),
        ((0.5, 0.2, 0.1), (9.0, 9.0, 9.0), False, "worse"),
        ((1e-9, 1e-9, 1e-9), (1e-9, 1e-10, 1e-12), True, "better"),
    ],
)
def test_two_trainings_are_compared(before: Any, after: Any, comparable: bool, wanted: str) -> None:
    assert compared(before, after, comparable) == wanted


def test_trials_go_on_while_chance_may_decide() -> None:
    assert undecided([]) and undecided([-0.5]) and undecided([0.05])
    assert not undecided([0.3]), "clearly worse"
    assert not undecided([-0.5, 0.01]) and undecided([-0.5, 0.05])
    assert undecided([0.05, 0.05, 0.05, 0.05]) and not undecided([0.05] * 5)
    assert judged([-0.5, 0.3]) == "worse", "what is worse in one of the first two"
    assert judged([0.08, 0.08, 0.07, 0.02, 0.01]) == "worse", "a tighter limit for the median of many"
    assert judged([0.08, -0.3, 0.3, -0.2, -0.15]) == "better"
    assert judged([0.08, 0.0]) == "no effect"


def test_how_far_one_training_is_behind_another() -> None:
    before, after = (2.0, 1.0, *[0.1] * 5), (1.0, 0.5, *[0.3] * 5)
    assert behind(before, after) == pytest.approx(0.2)
    assert behind(before, after, comparable=False) == pytest.approx(0.3 - 0.05)
    assert behind((2.0, 1.0, 0.1), (2.0, math.nan)) == math.inf
    assert behind((2.0, math.nan), (2.0, 1.0)) == -math.inf


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_comparison_does_not_depend_on_the_scale_of_the_loss(factor: float) -> None:
    net = sigmoid_net(3)
    plain = training(copy.deepcopy(net), batch(), CE, steps=20)
    scaled = training(copy.deepcopy(net), batch(), lambda o, y: factor * CE(o, y), steps=20)
    assert [x / plain[0] for x in plain] == pytest.approx([x / scaled[0] for x in scaled], rel=0.05)


def test_training_does_not_touch_the_model_or_the_random_generator() -> None:
    net = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    one = training(net, batch(), CE, steps=10, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert one == training(net, batch(), CE, steps=10, seed=3)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_proof_is_better_only_where_all_agree() -> None:
    good = Proof(("ACT002",), (), -10.0, -0.2, training="better")
    assert good.outcome == "better"
    assert Proof(("ACT002",), (), -10.0, -0.2, training="worse").outcome == "worse"
    assert Proof(("ACT002",), ("INI002",), -10.0, -0.2, training="better").outcome == "worse"
    assert Proof(("ACT002",), (), -2.0, 5.0, training="better").outcome == "worse"
    assert Proof(("ACT002",), ("ACT002",), -10.0, -10.0).outcome == "no effect"
