"""The contract of the zoo: every entry builds, has its published size, runs, and is as healthy as it says.

Notable: a sick ancestor must get the right code first; every other network no finding of weight. The deepest
ones are examined on small images.
"""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import unvanish
from unvanish.core.diagnosis import SEVERITIES
from unvanish.lab.models import build, catalogue, read, zoo

ENTRIES = {entry.name: entry for entry in catalogue()}
IMAGES = [name for name, entry in ENTRIES.items() if entry.task == "classify"]
PUBLISHED = {
    "plain20": 269_722, "plain56": 853_018, "plain110": 1_727_962,
    "resnet20": 269_722, "resnet56": 853_018, "resnet110": 1_727_962, "resnet1202": 19_421_274,
    "preactresnet110": 1_727_962, "resnet18": 11_689_512, "resnet50": 25_557_032, "vit-tiny": 5_717_416,
}  # fmt: skip
SICK = {
    "sigmoid-cnn": "ACT002", "tanh-cnn": "INI001",
    "plain44": "NRM001", "plain56": "NRM001", "plain110": "NRM001",
}  # fmt: skip
MILD = {"plain32"}  # between the two: it trains, worse
SLOW = {
    "resnet1202", "resnet110", "plain110", "preactresnet110", "preactresnet164", "resnet50", "vit-tiny",
    "yolo11s-cls", "yolo11m-cls", "yolo11l-cls", "yolo11x-cls",
}  # fmt: skip
DETECTORS = {name for name, entry in ENTRIES.items() if entry.task in ("detect", "segment")}  # in test_yolo11
SMALL = {"vocabulary": 23, "target_vocabulary": 19, "length": 12, "classes": 5, "outputs": 3, "features": 2}


SMALLEST = {name for name in IMAGES if name != "resnet50" and not name.startswith("yolo")}


def facts_of(name, size):
    """Facts that a data set would give, as far as the task has them."""
    task = ENTRIES[name].task
    wanted = {
        "classify": ("classes",), "sentiment": ("vocabulary", "length", "classes"),
        "language": ("vocabulary", "length"), "translate": ("vocabulary", "target_vocabulary", "length"),
        "sequence": ("features", "length", "outputs"),
    }[task]  # fmt: skip
    return {key: SMALL[key] for key in wanted} | ({"size": size} if task == "classify" else {})


def inputs_of(net, batch):
    facts = net.facts
    if net.task == "classify":
        return (torch.randn(batch, facts.get("channels", 3), facts["size"], facts["size"]),)
    if net.task == "sequence":
        return (torch.randn(batch, facts["length"], facts["features"]),)
    words = torch.randint(3, min(facts["vocabulary"], facts.get("target_vocabulary", 99)), (batch, 12))
    return (words,) * len(net.spec.inputs)


def test_the_zoo_lists_scales_as_networks():
    names = zoo()
    assert {*PUBLISHED, *SICK, "relu-cnn", "gelu-cnn", "vanilla"} <= set(names)
    assert names["resnet20"] == names["resnet1202"]
    assert all(path.suffix == ".yaml" for path in names.values())


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_says_what_it_is(name):
    spec = read(f"{name}.yaml")
    assert (spec.name, spec.task) == (name, ENTRIES[name].task)
    assert len(ENTRIES[name].description) > 20
    assert ENTRIES[name].description == spec.description
    assert ("sick" in spec.description) >= (name in SICK)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_parameter_count(name):
    net = build(f"{name}.yaml", device="meta")
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED[name]


def test_the_deepest_one_builds_in_seconds():
    build("resnet20", size=8)
    begin = time.process_time()
    net = build("resnet1202")
    assert time.process_time() - begin < 15
    assert len(net.stage3) == 200


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in {"resnet1202", *DETECTORS}])
def test_every_entry_runs_forward_and_back(name):
    torch.manual_seed(0)
    net = build(name, **facts_of(name, 8 if ENTRIES[name].task == "classify" and name in SMALLEST else 32))
    inputs = inputs_of(net, 4)
    out = net(*inputs)
    assert out.shape[0] == 4 and out.isfinite().all()
    ends = {"classify": 5, "sentiment": 5, "language": 23, "translate": 19, "sequence": 3}
    assert out.shape[-1] == ends[net.task]
    assert out.shape == (4, *net.shapes[-1][1:])
    (out * torch.randn_like(out)).mean().backward()
    missing = [path for path, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def heavy(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


def examined(name, size, batch=16, **overrides):
    torch.manual_seed(0)
    net = build(read(name, **overrides), size=size)
    classes = net.facts["classes"]
    data = torch.randn(batch, 3, size, size), torch.randint(0, classes, (batch,))
    return unvanish.check(net, data, loss=nn.CrossEntropyLoss()).findings


def grave(findings):
    return [(f.code, f.cause) for f in findings if SEVERITIES.index(f.severity) >= 1]


@pytest.mark.parametrize("name", heavy([n for n in IMAGES if n not in {*SICK, *MILD, "resnet1202"}]))
@pytest.mark.timeout(600)
def test_a_sound_network_gets_no_warning(name):
    size = 64 if name in ("resnet18", "resnet50") or name.startswith("yolo") else 32
    assert grave(examined(name, size, 8 if size == 64 else 16)) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_deepest_one_gets_no_warning():
    assert grave(examined("resnet1202", 8, 8)) == []


@pytest.mark.parametrize("name", heavy(SICK))
@pytest.mark.timeout(600)
def test_a_sick_ancestor_gets_the_right_code_first(name):
    found = grave(examined(name, 32))
    assert found and found[0][0] == SICK[name]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("sigmoid-cnn", {"init": "critical"}),
        ("tanh-cnn", {"init": "critical"}),
        ("tanh-cnn", {"init": "he"}),
        ("relu-cnn", {"init": "he"}),
        ("relu-cnn", {"activation": "leaky_relu"}),
        ("relu-cnn", {"activation": "silu"}),
        ("resnet20", {"activation": "gelu"}),
        ("resnet20", {"norm": "none"}),
        ("resnet20", {"norm": "layer"}),
        ("vanilla", {"depth": 100}),
        ("vanilla", {"depth": 100, "activation": "sigmoid"}),
    ],
    ids=str,
)
def test_one_line_makes_it_sound(name, overrides):
    assert grave(examined(name, 32, **overrides)) == []


@pytest.mark.parametrize(
    ("name", "overrides", "code"),
    [
        ("relu-cnn", {"init": "torch"}, "INI001"),
        ("relu-cnn", {"activation": "sigmoid", "init": "xavier"}, "ACT002"),
    ],
    ids=str,
)
def test_one_line_makes_it_sick(name, overrides, code):
    assert grave(examined(name, 32, **overrides))[0][0] == code


@pytest.mark.slow
def test_ten_thousand_layers_are_described_at_once():
    begin = time.process_time()
    net = build(read("vanilla", depth=10_000, width=8), size=8, device="meta")
    assert len(net.trunk) == 10_000
    assert time.process_time() - begin < 60
