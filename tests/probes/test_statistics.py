"""Every statistic of a trace is measured somewhere, and those of activations also in a watched training."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unvanish.probes
from unvanish.core.trace import STATISTICS
from unvanish.probes.live.summaries import SEEN, summarise_forward
from unvanish.probes.live.updates import MOVED
from unvanish.probes.measures import activation_stats, see

# statistics of activations that a look of a watched training leaves out
NOT_SEEN = {
    "forward_max": "the largest of the few elements that are copied says little",
    "token_cosine": "at most 8 positions are copied, and no rule that watches reads it",
}


def words() -> set[str]:
    """Every text in the files of probes/, and every keyword of a call."""
    found: set[str] = set()
    for path in Path(unvanish.probes.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            if isinstance(node, ast.keyword) and node.arg:
                found.add(node.arg)
    return found


def test_every_statistic_is_measured():
    missing = STATISTICS.keys() - words()
    assert not missing, f"core/trace.py names {missing}, but no file of probes/ measures it"


def test_every_statistic_of_activations_is_seen_in_training_or_left_out_with_a_reason():
    measured = activation_stats(torch.randn(4, 5, 8), 4, tokens=True).keys()
    missing = measured - {*SEEN} - NOT_SEEN.keys()
    assert not missing, f"{missing}: measure it in probes/live/summaries.py, or say in NOT_SEEN why not"
    assert NOT_SEEN.keys() <= measured - {*SEEN}


def test_what_a_training_sees_has_a_meaning():
    assert {*SEEN, *MOVED} <= STATISTICS.keys()


@pytest.mark.parametrize("bad", [False, True])
def test_a_look_measures_what_an_examination_does(bad):
    x = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.3
    sizes = torch.tensor([[6.0, 3.0, 4.0]], dtype=torch.float64)
    if bad:
        x[1, 2, 3] = float("nan")
    alone = activation_stats(x, 6)
    seen = dict(zip(SEEN, summarise_forward(x.flatten(1)[None], sizes)[0].tolist(), strict=False))
    names = ["forward_nonfinite"] if bad else ["forward_rms", "spread", "cosine", "forward_nonfinite"]
    assert [seen[n] for n in names] == pytest.approx([alone[n] for n in names], rel=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])  # at 1e4 the samples differ by a ten-thousandth
@pytest.mark.parametrize("shape", [(5, 3), (64, 4096), (300, 20_000)])
def test_likeness_is_what_its_definition_says(offset, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + offset
    found = activation_stats(x, shape[0])
    rows = x[:64, -(-shape[1] // 4096) // 2 :: -(-shape[1] // 4096)]
    unit = rows / rows.norm(dim=1, keepdim=True)
    pairs = unit @ unit.T
    pairs.fill_diagonal_(0.0)
    spread = (rows - rows.mean(0)).norm() / rows.norm()
    assert found["spread"] == pytest.approx(float(spread), rel=1e-6)
    cosine = float(pairs.sum()) / (len(rows) * (len(rows) - 1))
    assert found["cosine"] == pytest.approx(cosine, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda z: z,
        lambda z: z.conj(),
        lambda z: z.conj().imag,
        lambda z: z.real,
        lambda z: z.real.t(),
        lambda z: z.real[0, 0],
        lambda z: z.real[:0],
        lambda z: z.real[0].expand(5, 4),
        lambda z: z.real.requires_grad_(),
    ],
)
def test_numpy_sees_what_torch_sees(make: Callable[[Tensor], Tensor]) -> None:
    x = make(torch.randn(3, 4, dtype=torch.complex64))
    seen = see(x)
    assert not (seen.size and seen.flags.writeable)
    assert seen.shape == tuple(x.shape)
    assert seen.tolist() == x.tolist()
