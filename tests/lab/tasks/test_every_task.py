"""Every task keeps the contract: a page, a loss with a gradient, metrics that hold the fitness."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.lab.tasks import task, tasks

FACTS = {"classes": 7, "vocabulary": 11, "target_vocabulary": 11, "outputs": 7}


DETECTORS = [name for name in tasks() if task(name).summed]  # held to it in tests/tasks/detection
SIMPLE = [name for name in tasks() if name not in DETECTORS]


def draw_batch(name, seed):
    """The outputs and targets that the task's file brings."""
    module = task(name).module
    assert hasattr(module, "example"), f"{module.__name__} needs example(facts, generator): outputs, targets"
    return module.example(FACTS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SIMPLE)
def test_loss_and_metrics(name):
    chosen = task(name)
    output, y = draw_batch(name, 0)
    output.requires_grad_()
    loss = chosen.loss(0.1)(output, y)
    loss.backward()
    assert loss.ndim == 0 and output.grad.abs().sum() > 0
    metrics = chosen.metrics(FACTS)
    metrics.update(output, y)
    numbers = metrics.compute()
    assert all(math.isfinite(v) for v in numbers.values())
    assert chosen.fitness in numbers and len(chosen.page) > 80
    metrics.reset()
    assert chosen.fitness not in metrics.compute()


@pytest.mark.parametrize("name", SIMPLE)
def test_a_better_answer_has_the_better_fitness(name):
    chosen = task(name)
    output, y = draw_batch(name, 1)
    right = torch.nn.functional.one_hot(y, output.shape[-1]) * 9.0
    worse, better = chosen.metrics(FACTS), chosen.metrics(FACTS)
    worse.update(output, y)
    better.update(right, y)
    gain = better.compute()[chosen.fitness] - worse.compute()[chosen.fitness]
    assert gain * (1 if chosen.higher else -1) > 0
    assert chosen.loss()(right, y) < chosen.loss()(output, y)


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(KeyError, match="did you mean 'classify'"):
        task("clasify")


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="label smoothing"):
        task("classify").loss(smoothing)
