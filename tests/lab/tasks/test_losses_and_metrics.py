"""Losses and metrics against values worked out by hand with NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unvanish.lab.tasks import task
from unvanish.lab.tokens import BEGIN, END, PAD


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(logits, ids, smoothing):
    """Mean over real positions of (1 - s) (-log p_y) + s mean_k (-log p_k)."""
    total, count = 0.0, 0
    for row, target in zip(log_softmax(logits).reshape(-1, logits.shape[-1]), ids.ravel(), strict=True):
        if target != PAD:
            total += -(1 - smoothing) * row[target] - smoothing * row.mean()
            count += 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["language", "translate"])
def test_token_loss_leaves_padding_out(name, smoothing):
    generator = np.random.default_rng(0)
    logits, ids = generator.normal(size=(3, 5, 8)), generator.integers(1, 8, (3, 5))
    ids[0, 3:] = ids[2, 1:] = PAD
    loss = task(name).loss(smoothing)(torch.tensor(logits), torch.tensor(ids))
    assert float(loss) == pytest.approx(by_hand(logits, ids, smoothing), rel=1e-9)
    changed = logits.copy()
    changed[ids == PAD] += 5.0
    again = task(name).loss(smoothing)(torch.tensor(changed), torch.tensor(ids))
    assert float(again) == pytest.approx(float(loss), rel=1e-12)


def test_perplexity_is_the_exponential_of_the_loss_over_all_tokens():
    generator = torch.Generator().manual_seed(0)
    metrics, loss = task("language").metrics({"vocabulary": 6}), task("language").loss()
    outputs = [torch.randn(2, n, 6, generator=generator) for n in (4, 9)]
    ids = [torch.randint(1, 6, (2, n), generator=generator) for n in (4, 9)]
    ids[1][:, 5:] = PAD
    for output, y in zip(outputs, ids, strict=True):
        metrics.update(output, y)
    flat = torch.cat([o.flatten(0, 1) for o in outputs])[None], torch.cat([y.flatten() for y in ids])[None]
    numbers = metrics.compute()
    assert numbers["perplexity"] == pytest.approx(math.exp(float(loss(*flat))), rel=1e-5)
    real = flat[1] != PAD
    right = (flat[0].argmax(-1) == flat[1])[real].float().mean()
    assert numbers["token_accuracy"] == pytest.approx(float(right))


def test_classification_is_counted_right():
    generator = np.random.default_rng(1)
    logits, y = generator.normal(size=(200, 8)), generator.integers(0, 8, 200)
    metrics = task("classify").metrics({"classes": 8})
    for i in range(0, 200, 64):
        metrics.update(torch.tensor(logits[i : i + 64]), torch.tensor(y[i : i + 64]))
    guess = logits.argmax(1)
    confusion = np.zeros((8, 8), int)
    np.add.at(confusion, (y, guess), 1)
    top5 = np.mean([t in np.argsort(row)[-5:] for row, t in zip(logits, y, strict=True)])
    numbers = metrics.compute()
    assert numbers["accuracy"] == pytest.approx((guess == y).mean())
    assert numbers["top5"] == pytest.approx(top5)
    assert (metrics.tables()["confusion"].numpy() == confusion).all()
    f1 = [2 * confusion[k, k] / (confusion[k].sum() + confusion[:, k].sum()) for k in range(8)]
    assert numbers["f1"] == pytest.approx(np.mean(f1), rel=1e-6)


def test_few_classes_have_no_top5():
    metrics = task("sentiment").metrics({"classes": 2})
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert set(metrics.compute()) == {"accuracy", "f1"}


def test_numbers_are_compared_in_the_shape_of_the_targets():
    output, y = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 1.0, 1.0])
    assert float(task("sequence").loss()(output, y)) == pytest.approx(10 / 3)
    metrics = task("sequence").metrics({"outputs": 1})
    metrics.update(output, y)
    numbers = metrics.compute()
    assert numbers["mse"] == pytest.approx(10 / 3) and numbers["mae"] == pytest.approx(4 / 3)
    assert numbers["fitness"] == -numbers["mse"]


def test_blanks_count_neither_for_recall_nor_for_the_loss():
    y = torch.tensor([[0, 0, 0, 0, 2, 1]])
    only_blanks = nn.functional.one_hot(torch.zeros(1, 6, dtype=torch.long), 3) * 20.0
    metrics = task("sequence").metrics({"classes": 3})
    metrics.update(only_blanks, y)
    assert metrics.compute()["accuracy"] == 0
    assert float(task("sequence").loss()(only_blanks, y)) == pytest.approx(20, rel=1e-4)


class Parrot(nn.Module):
    """Translates by repeating the source."""

    def translate(self, source, length):
        return source[:, :length]


WORDS = dict(enumerate(["a", "man", "rides", "the", "red", "horse", "through", "town"], 4))


def test_bleu_reads_the_networks_own_translations():
    facts = {"target_vocabulary": 20}
    metrics = task("translate").metrics(facts, lambda ids: " ".join(WORDS[i] for i in ids))
    y = torch.tensor([[*range(4, 12), END], [4, 5, 6, 7, 8, END, PAD, PAD, PAD]])
    assert metrics.decodes
    metrics.observe(Parrot(), (torch.cat([torch.full((2, 1), BEGIN), y], 1), None), y)
    assert metrics.compute()["bleu"] == pytest.approx(100)
    wrong = y.clone()
    wrong[0, 3] = 4
    metrics.reset()
    assert "bleu" not in metrics.compute()
    metrics.observe(Parrot(), (wrong, None), y)
    # by hand: 12 of 13 words, 9 of 11 pairs, 6 of 9 triples, 3 of 7 fours match; equal lengths
    expected = 100 * (12 / 13 * 9 / 11 * 6 / 9 * 3 / 7) ** 0.25
    assert metrics.compute()["bleu"] == pytest.approx(expected, rel=1e-6)


def one_of_two(rank, file, results):
    """A process that saw one of two translations; it writes down the BLEU of both."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    metrics = task("translate").metrics({"target_vocabulary": 4})
    metrics.pairs.append(PAIRS[rank])
    found = metrics.compute()["bleu"]
    (results / f"{rank}.txt").write_text(repr(found))
    dist.destroy_process_group()


PAIRS = [("a man rides a horse", "a man is riding a horse"), ("two dogs run on the grass", "two dogs run")]


@pytest.mark.slow
def test_bleu_is_counted_over_all_processes(tmp_path, monkeypatch):
    from sacrebleu.metrics.bleu import BLEU

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(one_of_two, (tmp_path / "meeting", tmp_path), nprocs=2)
    expected = BLEU().corpus_score([a for a, _ in PAIRS], [[b for _, b in PAIRS]]).score
    for rank in (0, 1):
        assert float((tmp_path / f"{rank}.txt").read_text()) == pytest.approx(expected, rel=1e-9)
