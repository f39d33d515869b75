"""The table of signatures against torch's own, and what is read of calls by position and by keyword."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unvanish import check
from unvanish.core.trace import Trace
from unvanish.probes import operations
from unvanish.probes.signatures import SIGNATURES, bind, replace

PYTHON = {"rdiv": torch.Tensor.__rdiv__, "grouped_mm": getattr(F, "grouped_mm", None)}  # they have no schema
UNCOMPARED = {"einsum": "it takes any number of operands"}
RECENT = {"_grouped_mm", "grouped_mm"}  # not in every torch of the range


def schemas(kind: str) -> list[dict[str, tuple[bool, Any]]]:
    """Of each overload, the arguments by name in order: whether one has a default, and which."""
    return [
        {
            ("input" if a.name == "self" else a.name): (a.has_default_value(), a.default_value)
            for a in s.arguments
        }
        for s in torch._C._jit_get_schemas_for_operator(f"aten::{kind}")
    ]


def fits(kind: str, schema: dict[str, tuple[bool, Any]]) -> bool:
    """Whether an overload has our names in our order, and our defaults."""
    names, defaults = SIGNATURES[kind]
    return tuple(schema) == names and all(
        same(defaults[name], value) if has and name in defaults else not has and name not in defaults
        for name, (has, value) in schema.items()
    )


def same(ours: Any, theirs: Any) -> bool:
    """Whether two defaults are equal; torch may repeat a number for every dimension."""
    if isinstance(theirs, list):
        return all(x == ours for x in theirs) if theirs else ours == ()
    return ours == theirs or (isinstance(theirs, float) and ours == pytest.approx(theirs))


@pytest.mark.parametrize("kind", sorted({*SIGNATURES} - {*PYTHON} - {*UNCOMPARED}))
def test_an_entry_is_torchs_schema(kind):
    found = schemas(kind)
    if not found and kind in RECENT:
        pytest.skip(f"torch {torch.__version__} has no {kind}")
    assert any(fits(kind, schema) for schema in found), found


@pytest.mark.parametrize("kind", sorted(PYTHON))
def test_an_entry_is_the_signature_of_a_python_function(kind):
    if PYTHON[kind] is None:
        pytest.skip(f"torch {torch.__version__} has no {kind}")
    parameters = inspect.signature(PYTHON[kind]).parameters
    names = ["input" if name == "self" else name for name in parameters]
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    assert (tuple(names), defaults) == SIGNATURES[kind]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("linear", ("input", "bias", "weight")),
        ("layer_norm", {"weight": None, "bias": None, "eps": 1e-6, "cudnn_enable": True}),
        ("clamp_min", {"min": None}),
    ],
)
def test_a_wrong_entry_does_not_pass(kind, change, monkeypatch):
    names, defaults = SIGNATURES[kind]
    wrong = (change, defaults) if isinstance(change, tuple) else (names, change)
    monkeypatch.setitem(SIGNATURES, kind, type(SIGNATURES[kind])(*wrong))
    assert not any(fits(kind, schema) for schema in schemas(kind))


@pytest.mark.parametrize(
    "kinds",
    [
        "LAYERS",
        "NORMS",
        "RECURRENT",
        "PRODUCTS",
        "ATTENTION",
        "DROPOUTS",
        "POOLS",
        "ADAPTIVE_POOLS",
        "LOSSES",
    ],
)
def test_every_kind_whose_arguments_are_read_has_an_entry(kinds):
    assert {*getattr(operations, kinds)} <= {*SIGNATURES}


def test_the_weight_of_a_layer_is_an_argument_of_it():
    assert all(operations.WEIGHT.get(kind, "weight") in SIGNATURES[kind].names for kind in operations.LAYERS)


def test_position_keyword_and_numpys_names_are_one():
    x = torch.ones(2, 3)
    expected = {"input": x, "dim": -1, "dtype": None}
    assert bind("softmax", (x, -1), {}) == expected
    assert bind("softmax", (x,), {"dim": -1}) == expected
    assert bind("softmax", (), {"x": x, "axis": -1}) == expected
    assert torch.softmax(x=x, axis=-1).shape == x.shape  # torch takes them
    assert "min" not in bind("clamp_min", (x,), {})


def test_an_argument_is_replaced_where_it_stood():
    kind = "scaled_dot_product_attention"
    assert replace(kind, (1, 2, 3, None, 0.5, True), {}, "dropout_p", 0.0) == ((1, 2, 3, None, 0.0, True), {})
    assert replace(kind, (1, 2, 3), {"dropout_p": 0.5}, "dropout_p", 0.0) == ((1, 2, 3), {"dropout_p": 0.0})


class Calls(nn.Module):
    """A net of one function, between two linear layers."""

    def __init__(self, function: Any, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function, self.first = function, nn.Linear(8, 8)
        self.own = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.first(x), *self.own)


def traced(function: Any, *shapes: tuple[int, ...]) -> Trace:
    torch.manual_seed(0)
    return check(Calls(function, *shapes), torch.randn(6, 8)).trace


BY_POSITION_AND_KEYWORD = {
    "linear": (lambda h, w: F.linear(h, w), lambda h, w: F.linear(h, weight=w), (8, 8)),
    "matmul": (lambda h, w: torch.matmul(h, w), lambda h, w: torch.matmul(h, other=w), (8, 8)),
    "conv_transpose1d": (
        lambda h, w: F.conv_transpose1d(h[:, None].expand(-1, 4, -1), w, None, 1, 0, 0, 2),
        lambda h, w: F.conv_transpose1d(h[:, None].expand(-1, 4, -1), w, groups=2),
        (4, 3, 3),
    ),
}


@pytest.mark.parametrize("kind", BY_POSITION_AND_KEYWORD)
def test_a_weight_given_by_keyword_is_read_as_one_given_by_position(kind):
    by_position, by_keyword, shape = BY_POSITION_AND_KEYWORD[kind]
    one, other = traced(by_position, shape), traced(by_keyword, shape)
    site = next(s for s in one.sites if s.facts.get("weight") == "own.0")
    assert site.facts["fan_out"] == (6 if kind == "conv_transpose1d" else 8)
    assert [s.facts for s in one.sites] == [s.facts for s in other.sites]
    assert one.column("weight_log").tobytes() == other.column("weight_log").tobytes()


def test_the_weight_of_a_bilinear_layer_is_not_its_second_input():
    trace = traced(lambda h, w: F.bilinear(h, h, w), (5, 8, 8))
    facts = next(s.facts for s in trace.sites if s.kind == "bilinear")
    assert (facts["weight"], facts["fan_in"], facts["fan_out"]) == ("own.0", 64, 5)


def test_a_linear_layer_may_have_a_vector_of_weights():
    trace = traced(lambda h, w: F.linear(h, w), (8,))
    assert next(s for s in trace.sites if s.kind == "linear" and s.facts["shape"] == (6,))
