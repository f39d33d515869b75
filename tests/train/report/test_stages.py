"""The gradient of a detector by stage, against the gradients themselves; silent levels are not blamed."""

from __future__ import annotations

import math

import pytest
import torch

import unvanish
from unvanish.lab.models import build, read
from unvanish.lab.tasks import task
from unvanish.train.report.results import Results
from unvanish.train.report.stages import Stage, describe_stages, measure_stages, name_stage


def watched(boxes, steps=2, size=64):
    """A detector after some watched steps on the same boxes (w = h), and the watch."""
    torch.manual_seed(0)
    net = build(read("yolo11n.yaml"), classes=4).train()
    optimizer, loss = torch.optim.SGD(net.parameters(), 1e-4), task("detect").loss()
    rows = torch.tensor([[i, i % 4, 0.4, 0.4, side, side] for i, side in enumerate(boxes)])
    with unvanish.watch(net, optimizer, every=1, on_finding=[]) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            value = loss(net(torch.rand(len(boxes), 3, size, size)), rows)
            value.backward()
            optimizer.step()
            watch.step(value)
    return net, watch


def test_a_stage_s_number_is_that_of_its_gradients():
    net, watch = watched((0.5, 0.8), steps=1)
    found = {s.name: s for s in measure_stages(net, watch.diagnosis().trace)}
    assert list(found)[:2] == ["backbone", "neck"]
    branches = {f"{branch} P{level}" for branch in ("box", "score") for level in (3, 4, 5)}
    assert set(found) == {"backbone", "neck"} | branches
    squares: dict[str, list[float]] = {}
    for name, p in net.named_parameters():
        if p.grad is not None:
            part = squares.setdefault(name_stage(net, name), [0.0, 0.0])
            part[0] += float(p.grad.double().square().sum())
            part[1] += float(p.detach().double().square().sum())
    for name, (gradient, weight) in squares.items():
        if gradient:
            assert found[name].decades == pytest.approx(0.5 * math.log10(gradient / weight), abs=2e-3)
        else:
            assert found[name].silent == 1 and found[name].decades == -math.inf


def test_a_level_without_an_object_is_reported_and_is_not_a_fault():
    net, watch = watched((0.2, 0.2), size=128)  # no centre of a cell of 32 pixels lies in these
    found = measure_stages(net, watch.diagnosis().trace)
    silent = [s.name for s in found if s.silent]
    assert silent == ["box P5"]
    assert describe_stages(found)[1] == (
        "no object for the cells of P5 at 100% of the looks, so no gradient for their boxes: not a fault"
    )
    assert not [f for f in watch.findings if f.severity != "note"]


def test_where_the_parts_of_a_network_begin():
    net = build(read("yolo11n-seg.yaml"), classes=4)
    assert [name_stage(net, p) for p in ("0.conv", "10.join", "13.split.conv", "22.join")] == [
        "backbone", "backbone", "neck", "neck",
    ]  # fmt: skip
    assert name_stage(net, "23.coefficients.1.0.conv") == "coefficients P4"
    assert name_stage(net, "23.prototypes.first.conv") == "prototypes"


def test_nothing_is_said_without_a_look():
    assert describe_stages(()) == []
    summary = Results("detect", {}, stages=(Stage("neck", 0.5, 0.0),)).summary()
    assert summary["stages"] == [{"name": "neck", "decades": 0.5, "silent": 0.0}]
