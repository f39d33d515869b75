"""`cure`: every rule's sick model is healed and proven, nobody's model is touched, failure is reported."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.candidates import GENERAL
from unvanish.clinic.cure import Search
from unvanish.clinic.patient import Admission
from unvanish.clinic.prescription import Prescription
from unvanish.clinic.proof import Prover
from unvanish.clinic.trials import looks_trained
from unvanish.probes import CheckError
from unvanish.rules import rules
from unvanish.surgery.receipt import SurgeryError

ADVISED = {"GRF003", "LOS003", "OPT008"}  # notes, and a rate
ADVISED |= {"GRF002", "GRF005", "GRF006", "GRF007", "GRF008", "GRF010"}  # faults that only a person can mend
ADVISED |= {
    "INP003",
    "LEA001",
    "LEA002",
    "LOS001",
    "MOE001",
    "NRM003",
    "NUM002",
    "OUT006",
    "LOS005",
    "OUT007",
    "OUT008",
}
CODES = [c for c, rule in rules().items() if c not in ADVISED and "history" not in rule.needs]
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
    assert looks_trained(net, optimizer)
    cured = unvanish.cure(net, batch(), CE, optimizer=optimizer)
    assert all(r.safety == "exact" for r in cured.prescription.remedies)
    assert torch.allclose(cured.model(batch()[0]), net(batch()[0]), atol=1e-5)
    assert cured.success or "retrain" in cured.reason or "none of" in cured.reason
    allowed = unvanish.cure(net, batch(), CE, optimizer=optimizer, allow="retrain")
    assert allowed.success


def test_batch_statistics_that_have_counted_show_a_trained_model() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert not looks_trained(net)
    for _ in range(3):
        net(torch.randn(8, 4))
    assert looks_trained(net)


def test_it_reports_that_nothing_helps() -> None:
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


def test_the_budget_is_kept_and_reported() -> None:
    cured = unvanish.cure(sigmoid_net(30), batch(), CE, budget=1e-6)
    assert not cured.success
    assert "time ran out" in cured.reason


def test_pruning_never_returns_what_was_rejected_by_itself() -> None:
    model, data, loss = sigmoid_net(), batch(), nn.CrossEntropyLoss()
    before = unvanish.check(model, data, loss)
    admission = Admission(model, None, loss, data, before, seed=0)
    prover = Prover(admission.copy(), data, 60, 0, math.inf)
    search = Search(admission, frozenset({"exact", "retrain"}), prover, math.inf)
    table = {r.cure: r for r in before.findings[0].remedies}
    more = [table["swap-activation"], table["add-skips"]]
    both = admission.treat((), before, more)
    assert both is not None and both.diagnosis.healthy
    lean = search.prune(both).cures
    assert len(lean) == 1
    search.rejected = {lean}
    assert search.prune(both).cures != lean


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
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert Prescription.read(cured.prescription.yaml()) == Prescription.read(cured.prescription.yaml())
    assert cured._repr_html_().startswith("<div")


def test_a_loss_that_holds_the_size_of_the_batch_is_judged_on_the_whole() -> None:
    x, y = batch(32)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return -out.log_softmax(1)[torch.arange(32), y].mean()

    cured = unvanish.cure(sigmoid_net(), (x, y), loss, steps=20)
    assert cured.success and cured.proof.unseen == 0


def test_an_optimizer_that_holds_none_of_the_parameters_is_cured_too() -> None:
    x, _ = batch(64)
    net, other = (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2)) for _ in range(2))
    optimizer = torch.optim.SGD(other.parameters(), 0.3)
    cured = unvanish.cure(net, (x, (x[:, 0] > 0).long()), CE, optimizer=optimizer)
    assert cured.success, cured.reason
    assert [r.cure for r in cured.prescription.remedies] == ["add-to-optimizer"]
    sick = unvanish.cure(sigmoid_net(), batch(), CE, optimizer=optimizer)
    assert "OPT004" in sick.before.codes()


def test_what_ends_finite_but_learns_nothing_is_no_cure() -> None:
    """Logarithms of zeros: an epsilon makes them finite, and so large that nothing is learned."""

    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(16, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * self.head(torch.log(torch.relu(self.body(x))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    x, _ = batch(64)
    cured = unvanish.cure(Logs(), (x, torch.tanh(x[:, :1])), nn.MSELoss())
    assert cured.before.codes()[0] == "NUM001"
    assert not cured.success
    assert any("nothing shows that it trains better" in a.result for a in cured.attempts)


def test_one_outlier_is_bounded_robustly() -> None:
    x, _ = batch(64)
    y = (x[:, 0] > 0).long()
    x[3, 5] = 1e6
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    cured = unvanish.cure(net, (x, y), CE)
    assert cured.before.codes()[0] == "INP002" and cured.success
    remedy = cured.prescription.remedies[0]
    assert remedy.cure == "standardise-input" and max(remedy.parameters["stds"]) < 3
    assert remedy.parameters["bound"] == 10.0


def test_a_dropout_that_leaves_nothing_is_lowered() -> None:
    x, _ = batch(64)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.98), nn.Linear(32, 2))
    cured = unvanish.cure(net, (x, (x[:, 0] > 0).long()), CE)
    assert cured.success and cured.model[2].p == 0.1
    assert net[2].p == 0.98


@pytest.mark.parametrize("root", [torch.sqrt, lambda d: torch.pow(d, 0.5), lambda d: d**0.5])
def test_a_pole_in_the_loss_is_bounded_there(root: Any) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        apart = (out - out.detach()).mean(1).square()  # zero, where a root has no slope
        return CE(out, y) + 0.1 * root(apart).mean()

    x, _ = batch(64)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    cured = unvanish.cure(net, (x, (x[:, 0] > 0).long()), loss)
    assert cured.success, cured.reason
    assert [r.cure for r in cured.prescription.remedies] == ["bound-operation"]
    assert (
        cured.loss is not loss
        and not unvanish.check(cured.model, (x, (x[:, 0] > 0).long()), cured.loss).codes()
    )


class Rates(nn.Module):
    """exp overflows behind weights that are far too large; `squash`: what is made of it."""

    def __init__(self, squash: Any) -> None:
        super().__init__()
        self.body, self.head, self.squash = nn.Linear(8, 16), nn.Linear(16, 1), squash
        with torch.no_grad():
            self.body.weight.mul_(150.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.squash(torch.exp(self.body(x))))
        return out


SQUASHED = {"share": lambda h: h / (1 + h), "root": lambda h: torch.log(1 + h).tanh()}


def overflow(squash: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    y = torch.tanh(1.5 * x @ torch.randn(8, 3) / 8**0.5) @ torch.randn(3, 1)
    return Rates(SQUASHED[squash]), (x, y)


@pytest.mark.parametrize("squash", SQUASHED)
def test_what_is_finite_and_stays_saturated_is_drawn_again(squash: str) -> None:
    found = unvanish.cure(*overflow(squash), nn.MSELoss())
    assert found.success and [r.cure for r in found.prescription.remedies] == ["reinitialise"]
    assert any("fresh start" in a.result for a in found.attempts)


def test_what_a_fresh_start_outstrips_is_better_and_not_cured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GENERAL, "NUM001")
    found = unvanish.cure(*overflow("share"), nn.MSELoss())
    assert not found.success and [r.cure for r in found.prescription.remedies] == ["bound-operation"]
    assert found.proof is not None and found.proof.outstripped and "drawn afresh" in found.reason
    assert "better" in str(found)
