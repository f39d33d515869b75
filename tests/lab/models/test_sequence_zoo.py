"""The zoo of sequences: each builds from its YAML, runs on its task's form, and is as sound as it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.lab.models import build, read, zoo

ENDINGS = ("adding", "copy", "digits", "sentiment", "translate", "lm")
NAMES = sorted(name for name in zoo() if name.rpartition("-")[2] in ENDINGS)
SICK = {
    "rnn-adding": "REC001",
    "rnn-copy": "REC001",
    "rnn-digits": "REC001",
    "rnn-sentiment": "REC001",
    "rnn-translate": "REC001",
    "postnorm-lm": "NRM002",
}
FACTS = {"vocabulary": 200, "target_vocabulary": 150}
LONG = {"postnorm-lm", "deepnorm-lm"}


def sentences(batch: int, length: int, words: int) -> Tensor:
    """Random token ids whose sentences end at different places, padded with 0."""
    ids = torch.randint(4, words, (batch, length))
    ends = torch.randint(length // 2, length + 1, (batch, 1))
    ends[0] = length
    return ids * (torch.arange(length) < ends)


def adding(batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """The adding problem: numbers with two of them marked, and the sum of these."""
    x = torch.stack((torch.rand(batch, steps), torch.zeros(batch, steps)), -1)
    rows, half = torch.arange(batch), steps // 2
    for first in (0, half):
        x[rows, first + torch.randint(0, half, (batch,)), 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(1)


def data(name: str, facts: dict[str, int]) -> tuple[object, Tensor]:
    """A batch in the form of the network's task."""
    kind, length = name.rpartition("-")[2], facts["length"]
    if kind == "adding":
        return adding(16, length)
    if kind == "copy":
        x, y = torch.zeros(2, 8, length, dtype=torch.long)
        x[:, :10] = y[:, -10:] = torch.randint(1, 9, (8, 10))
        x[:, -11] = 9
        return nn.functional.one_hot(x, 10).float(), y
    if kind == "digits":
        return torch.rand(16, length, 1), torch.randint(0, 10, (16,))
    if kind == "sentiment":
        return sentences(16, 40, 200), torch.randint(0, 2, (16,))
    if kind == "lm":
        ids = torch.randint(4, facts["vocabulary"], (4, 33))
        return ids[:, :-1], ids[:, 1:]
    target = sentences(16, 14, 150)
    return (sentences(16, 24, 200), target.roll(1, 1)), target


def loss(output: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        return nn.functional.mse_loss(output.flatten(), y)
    blank = 0 if y.ndim > 1 else -100
    return nn.functional.cross_entropy(output.flatten(0, -2), y.flatten(), ignore_index=blank)


def made(name: str) -> tuple[nn.Module, tuple[object, Tensor]]:
    """The network with small vocabularies, and a batch for it."""
    torch.manual_seed(0)
    spec = read(name)
    facts = {key: FACTS.get(key, value) for key, value in spec.facts.items()}
    return build(spec, **facts), data(name, facts)


def test_every_task_of_sequences_is_there():
    assert {name.rpartition("-")[2] for name in NAMES} == set(ENDINGS)
    assert set(SICK) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_builds_runs_and_gets_gradients(name):
    net, (x, y) = made(name)
    output = net(*x) if isinstance(x, tuple) else net(x)
    assert output.shape[0] == len(y) and (y.ndim == 1 or output.shape[:2] == y.shape)
    loss(output, y).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert read(name).train["epochs"] >= 1


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES])
def test_its_health_is_what_it_says(name):
    net, batch = made(name)
    found = [f for f in unvanish.check(net, batch, loss=loss).findings if f.severity != "note"]
    if name in SICK:
        assert found and found[0].code == SICK[name]
    else:
        assert found == []


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("translate")])
def test_a_translator_of_the_zoo_says_words(name):
    net, ((source, _), _) = made(name)
    words = net.eval().translate(source[:2], 5)
    assert words.shape[0] == 2 and words.shape[1] <= 5


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("lm")])
def test_a_language_model_s_output_is_tied(name):
    net, _ = made(name)
    assert net.head.out.weight is net.embed.weight
