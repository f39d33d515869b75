"""Surgery on strange models: shared modules, half precision, wrapped models, functional calls, failures
half-way.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish.clinic.prescription import apply
from unvanish.core.diagnosis import Remedy
from unvanish.surgery.receipt import Receipt, SurgeryError
from unvanish.surgery.surgery import Surgery


class Hand(nn.Module):
    """A user's own forward: attributes, a ModuleList, functional calls of three kinds, in place and not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.stem(x))
        for layer in self.layers:
            x = layer(x).sigmoid_()
        return self.head(F.sigmoid(x))  # type: ignore[no-any-return]


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def swap(model: nn.Module, *targets: str, to: str = "relu") -> Receipt:
    return apply(model, [Remedy("swap-activation", targets, "", "retrain", {"to": to})])


def test_functional_calls_of_every_form_are_replaced() -> None:
    torch.manual_seed(0)
    model = Hand()
    swap(model, *("sigmoid", *(f"sigmoid[{i}]" for i in range(1, 6))))

    def by_hand(x: Tensor) -> Tensor:
        x = torch.relu(model.stem(x))
        for layer in model.layers:
            x = torch.relu(layer(x))
        return model.head(torch.relu(x))  # type: ignore[no-any-return]

    assert torch.equal(model(X), by_hand(X))


def test_single_calls_are_replaced_by_their_number() -> None:
    torch.manual_seed(0)
    model = Hand()
    swap(model, "sigmoid[5]", "sigmoid[0]", to="tanh")

    def by_hand(x: Tensor) -> Tensor:
        x = torch.tanh(model.stem(x))
        for layer in model.layers:
            x = torch.sigmoid(layer(x))
        return model.head(torch.tanh(x))  # type: ignore[no-any-return]

    assert torch.equal(model(X), by_hand(X))


def test_other_code_does_not_see_the_rewiring() -> None:
    model = Hand()
    swap(model, "sigmoid")
    model(X)
    assert torch.equal(torch.sigmoid(X), 1 / (1 + torch.exp(-X))) or torch.allclose(
        torch.sigmoid(X), 1 / (1 + torch.exp(-X))
    )
    assert F.relu.__module__ == "torch.nn.functional"
    assert not torch.nn.functional.has_torch_function((X,))  # type: ignore[attr-defined]


def test_the_rewiring_ends_when_the_forward_raises() -> None:
    class Broken(Hand):
        def forward(self, x: Tensor) -> Tensor:
            torch.sigmoid(self.stem(x))
            raise KeyError("inside")

    model = Broken()
    swap(model, "sigmoid")
    with pytest.raises(KeyError, match="inside"):
        model(X)
    assert torch.overrides._get_current_function_mode() is None  # type: ignore[attr-defined]


def test_a_shared_module_stays_shared() -> None:
    act = nn.Sigmoid()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)
    receipt = swap(model, "1")
    assert model[1] is model[3]
    assert isinstance(model[1], nn.ReLU)
    receipt.undo()
    assert model[1] is act is model[3]


def test_dtype_device_and_mode_are_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double().eval()
    apply(model, [Remedy("insert-normalisation", ("0",), "", "retrain", {"kind": "batch"})])
    norm = model[0].unvanish_norm
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.weight.dtype == torch.float64
    assert not norm.training
    assert model(torch.randn(3, 4).double()).dtype == torch.float64


def test_state_dict_keys_of_before_are_all_there() -> None:
    model = Hand()
    keys = set(model.state_dict())
    apply(
        model,
        [
            Remedy("insert-normalisation", ("stem", "layers.0"), ""),
            Remedy("add-skips", ("layers.1.weight",), ""),
        ],
    )
    assert keys <= set(model.state_dict())


def test_a_treated_model_can_be_pickled_and_saved(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    apply(
        model,
        [
            Remedy("add-skips", ("2.weight",), "", "retrain", {"branch": 0.5}),
            Remedy("insert-normalisation", ("0",), ""),
        ],
    )
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(X), again(X))
    fresh = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    apply(
        fresh,
        [
            Remedy("add-skips", ("2.weight",), "", "retrain", {"branch": 0.5}),
            Remedy("insert-normalisation", ("0",), ""),
        ],
    )
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(model(X), fresh(X))


def test_a_failure_half_way_takes_everything_back() -> None:
    model = Hand()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(SurgeryError, match="nowhere"):
        apply(model, [Remedy("zero-bias", ("stem.bias",), ""), Remedy("zero-bias", ("nowhere.bias",), "")])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("wrapped", "told"),
    [
        (lambda m: nn.DataParallel(m), "wrapped in DataParallel"),
        (lambda m: nn.Sequential(nn.DataParallel(m)), "holds wrapped in DataParallel"),
        (lambda m: torch.jit.script(nn.Sequential(nn.Linear(2, 2))), "ScriptModule"),
        (lambda m: "a string", "not a torch.nn.Module"),
        (lambda m: nn.LazyLinear(3), "no shape yet"),
        (lambda m: nn.Linear(2, 2, device="meta"), "meta device"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_what_cannot_be_operated_on_is_refused_with_the_reason(wrapped: Any, told: str) -> None:
    with pytest.raises(SurgeryError, match=told):
        Surgery(wrapped(nn.Linear(2, 2)))


def test_new_parameters_join_the_optimizer_and_removed_ones_leave() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = nn.RNN(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.core(x)[0][:, -1])  # type: ignore[no-any-return]

    model = Net()
    optimizer = torch.optim.Adam(
        [{"params": model.core.parameters()}, {"params": model.head.parameters(), "lr": 0.1}]
    )
    model(torch.randn(2, 5, 4)).sum().backward()
    optimizer.step()
    state = {p: optimizer.state[p]["exp_avg"].clone() for p in model.head.parameters()}
    receipt = apply(
        model, [Remedy("replace-cell", ("core",), "", "retrain", {"to": "gru"})], optimizer=optimizer
    )
    inside = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert inside == {id(p) for p in model.parameters()}
    for p, kept in state.items():
        assert torch.equal(optimizer.state[p]["exp_avg"], kept)
    optimizer.zero_grad()
    model(torch.randn(2, 5, 4)).sum().backward()
    optimizer.step()
    receipt.undo()
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    assert set(optimizer.state) == set(model.parameters())


def test_the_norm_in_post_norm_code_serves_the_next_branch() -> None:
    """Rewired post-norm is pre-norm, written out by hand."""
    from unvanish.surgery.branches import example

    net, (x, _) = example(blocks=3, post=True)
    blocks = [net[i] for i in range(3)]

    def by_hand(x: Tensor) -> Tensor:
        h = x
        branch_input = x
        for block in blocks:
            h = h + block.two(torch.relu(block.one(branch_input)))
            branch_input = block.norm(h)
        return net[3](branch_input)  # type: ignore[no-any-return]

    apply(net, [Remedy("pre-normalisation", ("0.norm", "1.norm", "2.norm"), "")])
    assert torch.allclose(net(x), by_hand(x), atol=1e-6)


def test_torchs_own_transformer_layers_become_pre_norm() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True) for _ in range(3)))
    other = copy.deepcopy(layers)
    x = torch.randn(2, 5, 16)
    apply(layers, [Remedy("pre-normalisation", tuple(f"{i}.norm{k}" for i in range(3) for k in (1, 2)), "")])
    for layer in other:
        layer.norm_first = True
    assert torch.allclose(layers(x), F.layer_norm(other(x), (16,)), atol=1e-6)
    layers.eval()
    with torch.no_grad():  # the fused path must not forget the graft
        assert torch.allclose(layers(x), F.layer_norm(other(x), (16,)), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 6), (6, 6)])
def test_orthogonal_matrices_are(shape: tuple[int, int]) -> None:
    net = nn.Linear(shape[1], shape[0])
    apply(net, [Remedy("reinitialise", ("weight",), "", "retrain", {"gain": 1.0, "method": "orthogonal"})])
    w = net.weight.detach()
    gain = (shape[0] / shape[1]) ** 0.5
    assert torch.allclose(w.T @ w, gain**2 * torch.eye(shape[1]), atol=1e-5)


def test_delta_orthogonal_kernels_are_isometries() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    apply(
        conv,
        [Remedy("reinitialise", ("weight",), "", "retrain", {"gain": 1.0, "method": "delta-orthogonal"})],
    )
    x = torch.randn(4, 8, 9, 9)
    assert torch.allclose(conv(x).norm(), x.norm(), rtol=1e-5)


def test_gaussian_weights_have_the_gain() -> None:
    net = nn.Linear(400, 300)
    apply(net, [Remedy("reinitialise", ("weight",), "", "retrain", {"gain": 1.5, "bias": 0.3})])
    assert float(net.weight.detach().var()) * 400 == pytest.approx(1.5**2, rel=0.02)
    assert float(net.bias.detach().std()) == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("to", ["gru", "lstm"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_replaced_rnn_takes_and_returns_the_same(to: str, batch_first: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.RNN(4, 8, 2, batch_first=batch_first, bidirectional=True)

        def forward(self, x: Any, h: Tensor | None = None) -> Any:
            return self.core(x, h)

    net, x, h = Net(), torch.randn(3, 5, 4), torch.randn(4, 3 if batch_first else 5, 8)
    shapes = [t.shape for t in net(x, h)]
    apply(net, [Remedy("replace-cell", ("core",), "", "retrain", {"to": to, "steps": 5})])
    assert [t.shape for t in net(x, h)] == shapes
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 4), torch.randn(3, 4)])
    out, state = net(packed)
    assert isinstance(out, nn.utils.rnn.PackedSequence)
    assert state.shape == (4, 2, 8)


def test_a_sparse_embedding_beside_a_clipper_is_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    apply(model, [Remedy("clip-gradient", (), "", "exact", {"limit": 1e-3})], optimizer=optimizer)
    model(torch.tensor([[1, 2]])).sum().backward()
    optimizer.step()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.is_sparse
