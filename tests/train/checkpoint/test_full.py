"""Full checkpoints: weights, plan and names out of a pickled network of classes that are not there.

Notable: the files are pickled with stand-in classes of a module that is taken away before they are read.
"""

from __future__ import annotations

import pickle
import sys
import types
import zipfile

import pytest
import torch
from torch import nn

from unvanish.lab.models import build
from unvanish.lab.models.published_names import to_published
from unvanish.train import Model
from unvanish.train.checkpoint import file as checkpoint
from unvanish.train.checkpoint import full, inert
from unvanish.train.errors import TrainError

PLAN = {
    "nc": 2,
    "scales": {"n": [0.33, 0.25, 1024]},
    "scale": "n",
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 3, "C2f", [128, True]],
        [-1, 1, "Conv", [256, 3, 2]],
    ],
    "head": [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[2, 4], 1, "Concat", [1]], [-1, 3, "C2f", [64]],
             [[6, 3], 1, "Detect", ["nc"]]],
    "yaml_file": "yolov8n-tiny.yaml",
    "ch": 3,
    "unknown": {"a": 1},
}  # fmt: skip


@pytest.fixture
def foreign(monkeypatch):
    """Makes classes of somebody else's, by which a network can be pickled; gone at the end."""
    module = types.ModuleType("theirs")
    monkeypatch.setitem(sys.modules, "theirs", module)

    def cls(name, *bases):
        if hasattr(module, name):
            return getattr(module, name)
        made = type(name, bases or (nn.Module,), {"__module__": "theirs", "__qualname__": name})
        setattr(module, name, made)
        return made

    return cls


def pickled(foreign, network, plan, names, half=True):
    """The network as foreign modules of the same published tensors, with its plan and names."""
    root = foreign("DetectionModel")()
    for key, value in network.state_dict().items():
        *path, leaf = to_published(network, key).split(".")
        holder = root
        for part in path:
            if part not in holder._modules:
                holder.add_module(part, foreign("Block")())
            holder = holder._modules[part]
        stored = value.half() if half and value.is_floating_point() else value
        if "running" in leaf or "num_batches" in leaf:
            holder.register_buffer(leaf, stored)
        else:
            holder.register_parameter(leaf, nn.Parameter(stored))
    root.yaml, root.names, root.stride = plan, names, torch.tensor([4.0, 8.0])
    root.criterion = foreign("Loss", object)()
    return root


@pytest.fixture
def saved(tmp_path, foreign, monkeypatch):
    """Write a full checkpoint of a small detector; gives the path and the network whose weights it holds."""

    def write(change=None, plan=PLAN, names=None, key="model", **more):
        torch.manual_seed(0)
        spec = {k: v for k, v in PLAN.items() if k not in ("yaml_file", "ch", "unknown")}
        network = build(spec, size=64).eval()
        for value in network.state_dict().values():
            value.copy_(value.half().float() if value.is_floating_point() else value)
        root = pickled(foreign, network, plan, names or {0: "cat", 1: "dog"})
        content = {
            "epoch": 3, "model": None, "ema": None, "optimizer": foreign("Optimizer", object)(),
            "date": "today", "train_args": {"imgsz": 64, "task": "detect"}, **more, key: root,
        }  # fmt: skip
        torch.save(change(content) if change else content, tmp_path / "best.pt")
        monkeypatch.delitem(sys.modules, "theirs")
        return tmp_path / "best.pt", network

    return write


@pytest.mark.parametrize("key", ["model", "ema"])
def test_a_network_is_rebuilt_from_its_own_plan(saved, capsys, key):
    path, network = saved(key=key)
    model = Model(path)
    assert (model.task, model.names, model.facts["size"], model.name) == (
        "detect", ["cat", "dog"], 64, "yolov8n-tiny",
    )  # fmt: skip
    for name, value in network.state_dict().items():
        there = model.network.state_dict()[name]
        assert there.dtype == value.dtype and torch.equal(there, value), name
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.network.eval()(x), network(x))
    said = capsys.readouterr().out
    assert f"of its `{key}`" in said and "left unopened: optimizer" in said and "2 class names" in said
    assert "theirs" not in sys.modules


def test_the_running_mean_is_preferred(saved, foreign):
    other = nn.Linear(2, 2)
    path, network = saved(key="ema", model=other)
    assert len(checkpoint.load(path).tensors) == len(network.state_dict())


def test_pretrained_says_by_count_what_it_took(saved, capsys):
    path, _ = saved()
    spec = {k: v for k, v in PLAN.items() if k not in ("yaml_file", "ch", "unknown")}
    model = Model({**spec, "nc": 2})
    model.take(checkpoint.load(path))
    total = len(model.network.state_dict())
    assert f"{total} of {total} tensors loaded" in capsys.readouterr().out and model.names == ["cat", "dog"]


@pytest.mark.parametrize(
    "change",
    [lambda c: c["model"], lambda c: {"state_dict": c["model"].state_dict(), "hyper": c["optimizer"]},
     lambda c: {"ema": {"module": c["model"].state_dict()}, "args": c["optimizer"]}],
    ids=["the module itself", "a state dict beside an object", "a mean within a table"],
)  # fmt: skip
def test_other_forms_give_their_tensors(saved, change):
    path, network = saved(change)
    target = build({k: v for k, v in PLAN.items() if k not in ("yaml_file", "ch", "unknown")}, size=64)
    assert checkpoint.fill(target, checkpoint.load(path).tensors, path) == []
    own = target.state_dict()
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({**PLAN, "head": [*PLAN["head"][:-1], [[6, 3], 1, "Pose", ["nc", [17, 3]]]]}, "the head 'Pose'"),
        ({**PLAN, "head": [*PLAN["head"][:-1], [[6, 3], 1, "os.system", ["nc"]]]}, "the head 'os.system'"),
        (
            {**PLAN, "backbone": [[-1, 1, "os.path.Net", [64]], *PLAN["backbone"][1:]]},
            "would import the Python module",
        ),
        ({**PLAN, "backbone": [[-1, 1, "C2g", [64]], *PLAN["backbone"][1:]]}, "did you mean"),
        ({**PLAN, "scales": {"n": [1.0, 900.0, 1_000_000]}}, "weights"),
        ({**PLAN, "backbone": [[-1, 10**9, "Conv", [64]], *PLAN["backbone"][1:]]}, "is repeated"),
        ({**PLAN, "backbone": "Conv"}, "holds weights only"),
        ({**PLAN, "backbone": [[-1, 1, "Conv", [32, 3, 2]], *PLAN["backbone"][1:]]}, "does not fit"),
        (object, "holds weights only"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_that_cannot_be_followed_is_one_line(saved, plan, told):
    path, _ = saved(plan=plan)
    with pytest.raises(TrainError) as error:
        Model(path)
    assert told in str(error.value) and "\n" not in str(error.value) and "best.pt" in str(error.value)


class Runs:
    """What a pickle would call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def bomb(code):
    """The bytes of a pickle from a function that writes opcodes."""
    return b"\x80\x02" + code + b"."


HOSTILE = {
    "calls": pickle.dumps({"model": Runs(exec, ("raise SystemExit",))}, 2),
    "imports": b"cnowhere.at.all\nNet\n(tR.",
    "far memory": bomb(b"}r\xff\xff\xff\xff0h\x00"),
    "huge count": bomb(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx"),
    "colliding keys": bomb(b"}(" + b"".join(
        b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(2000)) + b"u"),
    "nested key": bomb(b"}N\x85" + b"2\x86" * 60 + b"Ns"),
    "list key": bomb(b"}]Ns"),
    "no end": b"\x80\x02}",
    "empty stack": b"\x80\x020000.",
    "foreign reference": bomb(b"X\x01\x00\x00\x00aQ"),
    "extension": b"\x80\x02\x82\x01.",
    "long number": b"\x80\x02I" + b"9" * 10_000 + b"\n.",
    "text": b"not a pickle at all",
}  # fmt: skip


def archive(path, content, **files):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", content)
        made.writestr("x/version", "3\n")
        for name, data in files.items():
            made.writestr(f"x/data/{name.removeprefix('_')}", data)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_line_and_nothing_runs(tmp_path, name):
    path = archive(tmp_path / "x.pt", HOSTILE[name])
    with pytest.raises(TrainError) as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def number(value):
    """The opcodes of a whole number."""
    return b"\x8a\x08" + int(value).to_bytes(8, "little", signed=True)


def word(text):
    """The opcodes of a text."""
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def numbers(values):
    """The opcodes of a tuple of whole numbers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def described_tensor(key="0", count=4, offset=0, shape=(2, 2), strides=(2, 1), kind="FloatStorage"):
    """The pickle of a module whose parameter `a` is a tensor of this description."""
    memory = b"(" + word("storage") + b"ctorch\n" + kind.encode() + b"\n" + word(key) + word("cpu")
    tensor = b"(" + memory + number(count) + b"tQ" + number(offset) + numbers(shape) + numbers(strides)
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n" + tensor + b"\x89}tR"
    module = b"ctorch.nn\nModule\n)\x81}" + word("_parameters") + b"}" + word("a") + rebuilt + b"ssb"
    return b"\x80\x02}" + word("model") + module + b"s."


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({}, ""),
        ({"shape": (10**6, 10**6)}, "more than the file holds"),
        ({"shape": (2, 2), "strides": (0, 0)}, ""),
        ({"shape": (50, 50), "strides": (0, 0)}, "more numbers than its memory"),
        ({"offset": 3}, "more numbers than its memory"),
        ({"offset": -3}, "in a way that is not known"),
        ({"strides": (-1, 1)}, "in a way that is not known"),
        ({"count": 400}, "another size than its pickle says"),
        ({"key": "../../secret"}, "is damaged"),
        ({"kind": "ComplexStorage"}, "which is not read"),
    ],
    ids=str,
)
def test_a_tensor_lies_within_its_memory(tmp_path, described, told):
    content = torch.arange(4.0).numpy().tobytes()
    path = archive(tmp_path / "x.pt", described_tensor(**described), _0=content)
    if not told:
        assert full.read_full(path).tensors["a"].shape == (2, 2)
        return
    with pytest.raises(TrainError, match=told):
        checkpoint.load(path)


def test_work_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(inert, "OPERATIONS", 1000)
    with pytest.raises(TrainError, match="more than 1,000 operations"):
        checkpoint.load(archive(tmp_path / "x.pt", bomb(b"]" + b"N0" * 600)))


def test_a_program_and_an_old_form_are_named(tmp_path):
    with zipfile.ZipFile(archive(tmp_path / "p.pt", HOSTILE["calls"]), "a") as made:
        made.writestr("x/constants.pkl", b"")
    with pytest.raises(TrainError, match="TorchScript"):
        checkpoint.load(tmp_path / "p.pt")
    torch.save({"model": Runs(print, ())}, tmp_path / "o.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(TrainError, match=r"since 1\.6"):
        checkpoint.load(tmp_path / "o.pt")


def test_a_backbone_goes_from_one_task_to_another(saved, capsys):
    path, network = saved()
    rows = [*PLAN["backbone"], [-1, 1, "Classify", ["nc"]]]
    spec = {"nc": 3, "scales": PLAN["scales"], "scale": "n", "backbone": rows[:4], "head": rows[4:]}
    model = Model(spec)
    model.load(path)
    own = model.network.state_dict()
    same = [k for k, v in network.state_dict().items() if k.split(".")[0] in "0123"]
    assert same and all(torch.equal(own[k], network.state_dict()[k]) for k in same)
    assert f"{len(same)} of {len(own)} tensors loaded" in capsys.readouterr().out
    assert model.facts.get("classes") is None and not model.about.get("preparation")
