"""The user's own run is judged: what is cut, frozen, checkpointed or hooked there gets no gradient here."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish.core.diagnosis import Diagnosis, Finding

HERE = Path(__file__).name
Step = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    """An encoder and a head, with something between them."""

    def __init__(self, between: Step | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.between = nn.Linear(16, 32), nn.Linear(32, 4), between

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.encoder(x))
        out: Tensor = self.head(h if self.between is None else self.between(self, h))
        return out


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(32, 16), torch.randint(0, 4, (32,))


def check(model: nn.Module, loss: Any = F.cross_entropy, given: Any = None) -> Diagnosis:
    return unvanish.check(model, batch() if given is None else given, loss, confirm=False)


def the(code: str, diagnosis: Diagnosis) -> Finding:
    (found,) = [f for f in diagnosis.walk() if f.code == code]
    return found


def line_of(text: str) -> str:
    """`file.py:12` of the line of this file that holds a text."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return f"{HERE}:{next(k for k, own in enumerate(lines, 1) if text in own)}"


# -- activation checkpointing


class Checkpointed(nn.Module):
    """Frozen embeddings below checkpointed blocks."""

    def __init__(self, reentrant: bool, awake: bool = False, frozen: bool = True) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 4)
        self.embedding.requires_grad_(not frozen)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))
        self.reentrant, self.awake = reentrant, awake

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        if self.awake:
            h.requires_grad_(True)
        for block in self.blocks:
            h = h + checkpoint(block, h, use_reentrant=self.reentrant)
        out: Tensor = self.head(h.mean(1))
        return out


def tokens() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randint(0, 20, (16, 5)), torch.randint(0, 4, (16,))


def test_a_reentrant_block_whose_input_needs_no_gradient_is_blind() -> None:
    found = the("GRF001", check(Checkpointed(reentrant=True), given=tokens()))
    assert found.severity == "error" and "re-entrant checkpointing" in found.cause
    assert line_of("checkpoint(block, h") in found.cause
    assert {f"blocks.{k}.0.{n}" for k in (0, 1) for n in ("weight", "bias")} <= {*found.remedies[1].targets}
    assert "use_reentrant=False" in found.remedies[0].why


@pytest.mark.parametrize(
    "model",
    [Checkpointed(False), Checkpointed(True, awake=True), Checkpointed(True, frozen=False)],
    ids=["not re-entrant", "its input requires a gradient", "the embedding learns"],
)
def test_checkpointing_that_works_is_silent(model: nn.Module) -> None:
    assert check(model, given=tokens()).codes("warning") == ()


def test_a_reentrant_block_on_the_batch_itself_is_blind_although_we_let_it_require_gradients() -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(checkpoint(self.block, x, use_reentrant=True))
            return out

    assert "re-entrant" in the("GRF001", check(First())).cause


# -- requires_grad, loss without a graph


def test_a_part_that_is_frozen_while_it_runs_is_named_with_the_line() -> None:
    class Toggled(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.encoder.requires_grad_(False)  # off
            h = torch.relu(self.encoder(x))
            self.encoder.requires_grad_(True)
            out: Tensor = self.head(h)
            return out

    found = the("GRF001", check(Toggled()))
    assert "requires_grad=False while it ran in encoder" in found.cause
    assert line_of("False)  # off") in found.cause


def test_a_part_that_the_loss_freezes_is_lost_and_one_that_the_model_freezes_is_frozen() -> None:
    model = Net()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        model.encoder.requires_grad_(False)
        return F.cross_entropy(out, y)

    assert "while it ran in encoder" in the("GRF001", check(model, loss)).cause
    assert all(p.requires_grad for p in model.parameters())

    class Freezes(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.encoder.requires_grad_(False)
            return super().forward(x)

    assert check(Freezes()).codes("note") == ("GRF003",)


def test_a_loss_made_a_leaf_is_traced_to_the_cut() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out.detach(), y).requires_grad_(True)  # silenced

    found = the("GRF001", check(Net(), loss))
    assert (
        found.cause.startswith("the graph is cut by detach in the loss")
        and line_of("# silenced") in found.cause
    )


# -- which cut is to blame


@pytest.mark.parametrize(
    ("between", "how"),
    [
        (lambda m, h: (h.detach().norm().item(), h > 0, h.data)[2], ".data"),
        (lambda m, h: torch.tensor(h.tolist()), ".tolist()"),
        (lambda m, h: m.head.weight[:4].sum() * 0 + h.detach(), "detach"),
        (lambda m, h: (h > 0.1).float(), "comparison"),
        (lambda m, h: F.one_hot(h.topk(2).indices, 32).float().mean(1), "the indices of a largest value"),
        (lambda m, h: F.one_hot(h.long().clamp(0, 3), 32).float().mean(1), "a conversion to integers"),
    ],
    ids=["data beside a log", "tolist", "detach", "comparison", "indices", "integers"],
)
def test_the_cut_whose_value_comes_back_is_named(between: Step, how: str) -> None:
    found = the("GRF001", check(Net(between)))
    assert found.cause.startswith(f"the graph is cut by {how} in (model) (") and f"{HERE}:" in found.cause


def test_two_cuts_in_a_row_are_both_found() -> None:
    class Deep(Net):
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.encoder(x)).detach()
            out: Tensor = self.head(self.middle(h).data)
            return out

    cuts = check(Deep()).trace.facts["graph_cuts"]
    assert [(c["how"], c["behind"], c["frees"]) for c in cuts] == [
        ("detach", 1, ("encoder.bias", "encoder.weight")),
        ("data", 0, ("middle.bias", "middle.weight")),
    ]


def test_a_single_cut_is_not_blamed_for_a_value_that_only_feeds_a_log() -> None:
    logged: list[float] = []

    def log(m: nn.Module, h: Tensor) -> Tensor:
        logged.append(h.detach().norm().item())
        return h

    assert check(Net(log)).codes("note") == ()


# -- kept apart on purpose


class Teacher(nn.Module):
    def __init__(self, average: bool = False) -> None:
        super().__init__()
        self.student, self.average = net(), average
        self.teacher = copy.deepcopy(self.student)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            if self.average:
                for p, q in zip(self.student.parameters(), self.teacher.parameters(), strict=True):
                    q.mul_(0.9).add_(p, alpha=0.11)
            target = self.teacher(x)
        return self.student(x), target


class Random(nn.Module):
    """A fixed random network as a target."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor, self.target = net(), net()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            target = self.target(x)
        return self.predictor(x), target


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Teacher(), "a copy of a part that learns"),
        (Teacher(average=True), "written to by the forward itself"),
        (Random(), "read by the loss alone, as a target"),
    ],
    ids=["copy", "average", "target"],
)
def test_what_is_kept_apart_on_purpose_is_a_note(model: nn.Module, words: str) -> None:
    found = the("GRF001", check(model, lambda out, y: F.mse_loss(*out)))
    assert found.severity == "note" and words in found.cause


def test_a_layer_that_began_as_a_copy_of_the_next_is_no_teacher() -> None:
    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.second, self.head = copy.deepcopy(self.first), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x[:, None].expand(-1, 3, -1)).detach()
            out: Tensor = self.head(self.second(h).mean(1))
            return out

    assert the("GRF001", check(Copies())).severity == "error"


# -- hooks


def hooked(make: Callable[[nn.Sequential], Any]) -> nn.Module:
    model = net()
    make(model)
    return model


def zeros(*given: Any) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(g) for g in given[1] if g is not None)


def tensor_hook(m: nn.Module, h: Tensor) -> Tensor:
    h.register_hook(lambda g: g * 0)
    return h


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Net(tensor_hook), "a tensor in (model)"),
        (hooked(lambda m: m[2].register_full_backward_hook(zeros)), "on 2 "),
        (hooked(lambda m: m[2].register_full_backward_pre_hook(zeros)), "on 2 "),
        (hooked(lambda m: m[0].weight.register_hook(torch.zeros_like)), "on 0.weight "),
    ],
    ids=["tensor", "module", "module, before", "parameter"],
)
def test_a_hook_that_returns_zeros_is_named(model: nn.Module, where: str) -> None:
    found = the("GRF004", check(model))
    assert "backward hook" in found.cause and where in found.cause


def test_hooks_that_look_scale_or_mask_are_silent() -> None:
    mask = torch.ones(32, 16)
    mask[:4] = 0
    for make in (
        lambda m: m[2].register_full_backward_hook(lambda *_: None),
        lambda m: m[0].weight.register_hook(lambda g: g * mask),
        lambda m: m[0].weight.register_hook(lambda g: 0.1 * g),
    ):
        assert check(hooked(make)).codes("note") == ()


# -- what torch says


def test_what_torch_warns_of_is_repeated_once_and_other_warnings_are_not() -> None:
    def warn(m: nn.Module, h: Tensor) -> Tensor:
        for text in ("None of the inputs have requires_grad=True. Gradients will be None", "slow"):
            warnings.warn(text, stacklevel=1)
            warnings.warn(text, stacklevel=1)
        return h

    diagnosis = check(Net(warn))
    assert [text[:4] for text in diagnosis.trace.facts["warned"]] == ["None"]
    assert the("GRF008", diagnosis).severity == "warning" and HERE in the("GRF008", diagnosis).cause


# -- confirmed by experiment, and mended


class NoGrad(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():  # off for the encoder
            h = torch.relu(self.encoder(x))
        out: Tensor = self.head(h)
        return out


@pytest.mark.parametrize("model", [Net(lambda m, h: h.detach()), Net(lambda m, h: h.data), NoGrad()])
def test_a_cut_is_confirmed_by_leaving_it_out_and_mended(model: nn.Module) -> None:
    x, _ = batch()
    given = x, x[:, :4].argmax(1)
    found = the("GRF001", unvanish.check(model, given, F.cross_entropy))
    assert found.confirmed is True and found.experiment.endswith("2 become 0")
    cured = unvanish.cure(model, given, F.cross_entropy)
    assert cured.prescription is not None
    assert [r.cure for r in cured.prescription.remedies] == ["remove-detach"]


def test_no_grad_is_placed_where_it_is_turned_on_and_inference_mode_is_named() -> None:
    class Inference(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                h = torch.relu(self.encoder(x))
            out: Tensor = self.head(h.clone())
            return out

    assert the("GRF001", check(NoGrad())).sites[0] == "(model)"
    assert "inference_mode" in the("GRF001", check(Inference())).cause
