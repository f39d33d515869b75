"""`check` takes what trains: what it cannot read is said, and only what does not train is refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import pytest
import tests.fuzz.models  # noqa: F401  its blocks register themselves
import torch
from tests.fuzz.kit import BLOCKS
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish
from unvanish.core.omissions import be_strict
from unvanish.probes import CheckError, ModelCrash, forward

WHOLE = [  # everything is measured
    *("scripted", "traced", "traced_function", "sparse_lookup", "dead_lookup", "sparse_bag", "offset_bag"),
    *("complex_layer", "fourier", "magnitude", "empty_slice", "empty_columns", "expanded_parameter"),
    *("inner_gradient", "inner_backward", "inner_training", "grad_of_sum", "attention_gradient", "implicit"),
    *("checkpointed", "checkpointed_parts", "subclass", "subclass_inside", "own_function", "once", "dirty"),
    *("silent", "unmaterialised", "nested_graph", "func_call", "saved_hooks", "inference_part", "compiled"),
    *(
        "forward_mode",
        "multi_grad_hook",
        "conditional",
        "caught",
        "noncontiguous",
        "frozen",
        "old_weight_norm",
    ),
    *("ragged_padding", "float64_part", "bfloat16_part", "float16_part", "renormed_lookup", "gumbel"),
]
PARTLY = {  # what is left out, in words
    "func_grad": "operations in blocks",
    "func_vmap": "operations in blocks",
    "func_hessian": "operations in blocks",
    "ensemble": "operations in blocks",
    "maml": "operations in blocks",
    "nested_strided": "what theory expects",
    "nested_jagged": "what theory expects",
    "jagged_attention": "what theory expects",
}


class Around(nn.Module):
    """One block between a stem and a head."""

    def __init__(self, name: str) -> None:
        super().__init__()
        block = BLOCKS[name]
        ordered = block.source == "seq"
        self.stem = nn.Linear(5, 32 if ordered else 8)
        self.blocks = nn.ModuleList([block.make(8, random.Random(0))])
        self.ordered, self.head = ordered, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = self.blocks[0](h.view(len(x), 4, 8) if self.ordered else h)
        return self.head(h.mean(1) if self.ordered else h)


def examine(model: nn.Module) -> unvanish.Diagnosis:
    torch.manual_seed(1)
    return unvanish.check(model, (torch.randn(6, 5), torch.randint(0, 3, (6,))), nn.CrossEntropyLoss())


@pytest.mark.parametrize("name", WHOLE)
def test_an_unusual_model_is_measured_whole(name: str) -> None:
    torch.manual_seed(0)
    found = examine(Around(name))
    assert found.unmeasured == ()
    assert found.trace.depth() is not None
    reached = found.trace.where("parameter", reachable=True)
    gradients = [
        found.trace.value(i, "gradient_log") for i in reached if found.trace.sites[i].facts["numel"] > 0
    ]
    assert len(gradients) >= 2 and not any(g != g for g in gradients)


@pytest.mark.parametrize("name", PARTLY)
def test_what_cannot_be_read_is_said(name: str) -> None:
    torch.manual_seed(0)
    found = examine(Around(name))
    assert any(PARTLY[name] in sentence for sentence in found.unmeasured)
    assert "not measured: " in str(found)
    assert found.trace.where("parameter", reachable=True)


def test_a_derivative_through_attention_with_dropout_is_run_as_it_trains() -> None:
    torch.manual_seed(0)
    with be_strict(False):
        found = examine(Around("encoder_gradient"))
    assert any("run without dropout" in sentence for sentence in found.unmeasured)
    assert found.trace.depth() is not None


def test_a_function_that_bears_one_backward_is_measured() -> None:
    class Fading(nn.Module):
        """Its gradient must be rescaled, which needs a second backward."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(40)])
            self.free, self.head = BLOCKS["freeing"].make(5, random.Random(0)), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = 0.01 * layer(x)
            return self.head(self.free(x))

    torch.manual_seed(0)
    with be_strict(False):
        found = examine(Fading())
    assert found.unmeasured
    assert "DEP001" in found.codes()


@contextmanager
def fault(owner: Any, name: str) -> Iterator[None]:
    """A function of ours raises at every call."""

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("planted")

    with pytest.MonkeyPatch.context() as patch, be_strict(False):
        patch.setattr(owner, name, fail)
        yield


FAULTS = [
    *[f"forward.Forward.{name}" for name in ("_record", "_measure", "_keep", "_see", "_read_sizes")],
    *[
        "forward.undrop",
        "forward.signatures.bind",
        "forward.Dropouts.see",
        "forward.Forward._read_input",
        "forward.activation_stats",
    ],
    *[
        f"run_backward.{name}"
        for name in ("find_chains", "_choose_nodes", "_look_again", "_compare_precision")
    ],
    *[
        f"run_backward.loops.{name}"
        for name in ("find_loops", "measure_carries", "replay_layers", "read_loops")
    ],
    *["run_backward.attention.mark", "slopes._slope", "slopes._read", "together._read", "together._copy"],
    *[f"backward.Backward.{name}" for name in ("_run_at_once", "_watch", "_rescale", "_odd", "_holds")],
    *["backward.log_norm", "backward.norms", "backward.dense", "node_sites._choose", "node_sites._describe"],
    *["outputs.outputs", "sites.steps", "sites.activation_stats", "parameters._stats", "parameters._twins"],
    *["parameters._cancelled_biases", "parameters._zero_third", "program.tape.Taped._write", "record.norms"],
    *["program.tape.Taped.program", "record._compare", "record.find_blame", "record.find_apart"],
    *[f"signs.{name}" for name in ("find_foreign", "find_dead_terms", "find_routers", "find_leak")],
    *["signs.find_wrong_gradients", "forward.MixingSigns.look", "departures.Departures.leave"],
]


class Dropping(nn.Module):
    """A recurrent layer, dropout, and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.drop = nn.LSTM(5, 8, batch_first=True), nn.Dropout(0.1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.drop(self.core(x[:, None].expand(-1, 6, -1))[0][:, -1])))


@pytest.mark.parametrize("place", FAULTS)
def test_a_fault_of_ours_is_left_out_and_said(place: str) -> None:
    path, _, name = place.rpartition(".")
    owner: Any = import_module(f"unvanish.probes.{path.split('.')[0]}")
    for part in path.split(".")[1:]:
        owner = import_module(f"{owner.__name__}.{part}") if part == "tape" else getattr(owner, part)
    torch.manual_seed(0)
    model = Dropping()
    before = {n: p.clone() for n, p in model.named_parameters()}
    random_state = torch.get_rng_state()
    with fault(owner, name):
        found = unvanish.check(model, (torch.ones(4, 5), torch.tensor([0, 1, 2, 0])), F.cross_entropy)
        str(found)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert len(found.trace.where("parameter")) == 6


def test_what_does_not_train_alone_is_refused_with_its_own_exception() -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise OSError("the file is gone")

    with pytest.raises(ModelCrash, match="the file is gone") as caught:
        examine(Broken(5, 3))
    assert isinstance(caught.value.__cause__, OSError)


def test_the_module_of_a_crash_is_named_though_the_model_is_run_again() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(9, 3))
    with pytest.raises(ModelCrash) as caught:
        examine(model)
    assert caught.value.site == "2"


def test_objects_and_texts_are_batches() -> None:
    class Graph:
        def __init__(self) -> None:
            self.x, self.edges = torch.randn(5, 4), torch.tensor([[0, 1], [1, 2]])

    class Convolution(nn.Linear):
        def forward(self, graph: Any) -> Tensor:
            return super().forward(graph.x).relu().index_add(0, graph.edges[0], graph.x[graph.edges[1]])

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.letters, self.head = nn.Embedding(128, 4), nn.Linear(4, 2)

        def forward(self, texts: list[str]) -> Tensor:
            codes = [torch.tensor([ord(c) for c in text]) for text in texts]
            return self.head(torch.stack([self.letters(c).mean(0) for c in codes]))

    torch.manual_seed(0)
    assert unvanish.check(Convolution(4, 4), Graph(), lambda y: y.square().mean()).trace.where("parameter")
    found = unvanish.check(Reader(), (["ab", "cde"], torch.tensor([0, 1])), F.cross_entropy)
    assert found.trace.where("parameter", reachable=True)


def test_a_transform_hides_no_use_of_a_parameter() -> None:
    torch.manual_seed(0)
    found = examine(Around("func_grad"))
    assert "GRF002" not in found.codes("note")
    assert forward.find_transform() is None


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(4, 8), nn.Linear(8, 3)

    def forward(self, x: nn.utils.rnn.PackedSequence) -> Tensor:
        return self.head(self.core(x)[1][0][-1])


class Ragged(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([super(Ragged, self).forward(row).mean(0) for row in x.unbind()])


class Multiplied(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(x, self.weight.mT)


ROWS = [torch.arange(4.0 * n).view(n, 4) for n in (5, 3, 2)]
BATCHES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "packed": (Packed, lambda: nn.utils.rnn.pack_sequence(ROWS)),
    "jagged": (lambda: Ragged(4, 3), lambda: torch.nested.nested_tensor(ROWS, layout=torch.jagged)),
    "nested": (lambda: Ragged(4, 3), lambda: torch.nested.nested_tensor(ROWS)),
    "sparse": (lambda: Multiplied(4, 3), lambda: torch.eye(3, 4).to_sparse()),
    "compressed": (lambda: Multiplied(4, 3), lambda: torch.eye(3, 4).to_sparse_csr()),
    "one number each": (lambda: nn.Embedding(10, 3), lambda: torch.tensor([1, 2, 3], dtype=torch.int32)),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:Sparse:UserWarning")
@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_any_layout(name: str) -> None:
    torch.manual_seed(0)
    build, make = BATCHES[name]
    with be_strict(False):
        found = unvanish.check(build(), (make(), torch.tensor([0, 1, 2])), F.cross_entropy)
    reached = found.trace.where("parameter", reachable=True)
    assert reached and all(found.trace.value(i, "gradient_log") > -20 for i in reached)
    with be_strict(False), suppress(CheckError):  # a forecast, or one clear error
        unvanish.forecast(build(), batch=make() if name != "packed" else (make(),))
