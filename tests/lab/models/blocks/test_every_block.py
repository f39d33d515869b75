"""The contract of blocks: each runs, passes its gradient on, copies, pickles, and takes its state back.

Notable: a block without a case here fails, so the whole folder is held to it.
"""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from unvanish.lab.models.blocks import activations, blocks, norms
from unvanish.lab.models.flow import Flow
from unvanish.lab.models.initialise import METHODS, Begin, initialise
from unvanish.lab.models.modules import module_class

IMAGE = (4, 6, 8, 8)
SERIES = (4, 5, 8)
IDS = torch.tensor([[3, 4, 5, 6, 7]] * 2 + [[5, 3, 4, 0, 0]] * 2)

# a block's arguments after the widths, the shapes of its inputs (or ids), and of its output
CASES = {
    "Add": ({}, [IMAGE, IMAGE], IMAGE),
    "BasicBlock": ({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
    "C2PSA": ({"out": 6, "repeats": 2}, [IMAGE], IMAGE),
    "C3k": ({"out": 8}, [IMAGE], (4, 8, 8, 8)),
    "C3k2": ({"out": 8, "repeats": 2}, [IMAGE], (4, 8, 8, 8)),
    "Bottleneck": ({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
    "ChannelRMSNorm": ({}, [IMAGE], IMAGE),
    "ClassToken": ({}, [SERIES], (4, 8)),
    "Classify": ({"classes": 3}, [IMAGE], (4, 3)),
    "ClassifyHead": ({"classes": 3}, [IMAGE], (4, 3)),
    "Concat": ({}, [IMAGE, IMAGE], (4, 12, 8, 8)),
    "Conv": ({"out": 5, "stride": 2}, [IMAGE], (4, 5, 4, 4)),
    "CrossBottleneck": ({}, [IMAGE], IMAGE),
    "Embedding": ({"vocabulary": 9, "width": 8}, [IDS], SERIES),
    "FeedForward": ({}, [SERIES], SERIES),
    "GlobalAverage": ({}, [IMAGE], (4, 6)),
    "LanguageHead": ({"vocabulary": 9}, [SERIES], (4, 5, 9)),
    "LastBatchNorm": ({}, [SERIES], SERIES),
    "MinGRU": ({"width": 6}, [SERIES], (4, 5, 6)),
    "MinGRUBlock": ({}, [SERIES], SERIES),
    "MultiHeadAttention": ({"heads": 2}, [SERIES], SERIES),
    "NormActivation": ({}, [IMAGE], IMAGE),
    "PadShortcut": ({"out": 9, "stride": 2}, [IMAGE], (4, 9, 4, 4)),
    "PSABlock": ({}, [IMAGE], IMAGE),
    "PatchEmbedding": ({"width": 8, "size": 8, "patch": 2}, [IMAGE], (4, 17, 8)),
    "PlainBlock": ({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
    "PositionAttention": ({}, [IMAGE], IMAGE),
    "Prototypes": ({"width": 8, "out": 4}, [IMAGE], (4, 4, 16, 16)),
    "PreActivationBlock": ({"out": 8, "stride": 2}, [IMAGE], (4, 8, 4, 4)),
    "Readout": ({}, [SERIES], (4, 8)),
    "Recurrent": ({"width": 6}, [SERIES], (4, 5, 6)),
    "RecurrentTranslator": ({"vocabulary": 9, "target_vocabulary": 7, "width": 8}, [IDS, IDS % 7], (4, 5, 7)),
    "SPPF": ({"out": 8}, [IMAGE], (4, 8, 8, 8)),
    "SequenceHead": ({"outputs": 3}, [SERIES], (4, 5, 3)),
    "TransformerBlock": ({"heads": 2}, [SERIES], SERIES),
    "TransformerTranslator": (
        {"vocabulary": 9, "target_vocabulary": 7, "width": 8, "heads": 2, "layers": 1},
        [IDS, IDS % 7],
        (4, 5, 7),
    ),
}  # fmt: skip
PARTS = {
    "Additive",
    "Branch",
    "Detect",  # the three have tests of their own
    "Expectation",
    "Mixer",
    "Multiplicative",
    "Segment",
    "Translator",
}  # tested through what they are part of
UNPUBLISHED = {"Readout", "SequenceHead"}  # too simple to have a paper


def made(name):
    """A block and inputs for it."""
    torch.manual_seed(0)
    given, shapes, _ = CASES[name]
    inputs = [x if isinstance(x, torch.Tensor) else torch.randn(x, requires_grad=True) for x in shapes]
    cls = module_class(name)
    known = inspect.signature(cls).parameters
    if "width_in" in known:
        given = {"width_in": inputs[0].shape[1 if inputs[0].ndim == 4 else -1], **given}
    return cls(**given), inputs


def test_every_block_has_a_case():
    assert set(blocks()) == set(CASES) | PARTS


@pytest.mark.parametrize("name", sorted(set(CASES) - UNPUBLISHED))
def test_its_docstring_says_something_and_its_file_names_a_source(name):
    cls = module_class(name)
    assert inspect.getdoc(cls) and cls.__doc__
    page = inspect.getmodule(cls).__doc__
    assert any(year in page for year in map(str, range(1985, 2027))), f"{cls.__module__} names no paper"


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_reaches_inputs_and_parameters(name):
    block, inputs = made(name)
    out = block(*inputs)
    assert tuple(out.shape) == CASES[name][2]
    assert out.isfinite().all()
    (out * torch.randn_like(out)).sum().backward()
    for x in inputs:
        assert not x.is_floating_point() or (x.grad.isfinite().all() and x.grad.abs().sum() > 0)
    for path, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), path


@pytest.mark.parametrize("name", CASES)
def test_it_copies_pickles_and_takes_its_state_back(name):
    block, inputs = made(name)
    block.eval()
    expected = block(*inputs)
    fresh = made(name)[0].eval()
    fresh.load_state_dict(block.state_dict())
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), fresh):
        torch.testing.assert_close(other(*inputs), expected)


@pytest.mark.parametrize("name", CASES)
def test_its_shapes_are_right_without_data(name):
    given, shapes, expected = CASES[name]
    inputs = [x.to("meta") if isinstance(x, torch.Tensor) else torch.empty(x, device="meta") for x in shapes]
    cls = module_class(name)
    if "width_in" in inspect.signature(cls).parameters:
        given = {"width_in": inputs[0].shape[1 if inputs[0].ndim == 4 else -1], **given}
    with torch.device("meta"):
        block = cls(**given)
    assert tuple(block(*inputs).shape) == expected


@pytest.mark.parametrize("how", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_every_way_to_begin_leaves_a_finite_forward(name, how):
    block, inputs = made(name)
    flow = Flow(block)
    with torch.no_grad(), flow:
        block(*inputs)
    before = copy.deepcopy(block.state_dict())
    initialise(block, flow.layers, Begin(how, "relu", 20, 5))
    if how == "torch":
        assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())
    assert block(*inputs).isfinite().all()


@pytest.mark.parametrize("shortcut", ["pad", "project"])
@pytest.mark.parametrize("name", ["BasicBlock", "Bottleneck", "PreActivationBlock"])
def test_a_branch_that_begins_at_zero_leaves_the_identity(name, shortcut):
    torch.manual_seed(0)
    block = module_class(name)(8, 8, shortcut=shortcut)
    x = torch.randn(2, 8, 4, 4).abs()
    initialise(block, {}, Begin("critical", "relu", 100))
    torch.testing.assert_close(block(x), x)
    initialise(block, {}, Begin("he", "relu", 100))
    torch.testing.assert_close(block(x), x)  # he leaves it as it finds it


def test_padded_channels_come_alive():
    block = module_class("BasicBlock")(4, 8, stride=2)
    initialise(block, {}, Begin("critical", "relu", 100))
    assert (block(torch.randn(8, 4, 8, 8)).amax((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", activations.MODULES)
def test_every_activation_by_name(name):
    module = activations.activation(name.upper())
    assert isinstance(module, activations.MODULES[name])
    assert isinstance(activations.activation(f"nn.{type(module).__name__}()"), type(module))


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("name", norms.NAMES)
def test_every_norm_by_name(name, dims):
    x = 3 + 5 * torch.randn(*(SERIES if dims == 1 else (4, 8, 6, 6)))
    if dims == 1 and name in ("group", "instance"):
        with pytest.raises(ValueError, match="is for images"):
            norms.norm(name, 8, dims)
        return
    y = norms.norm(name, 8, dims)(x)
    assert y.shape == x.shape
    assert (y.pow(2).mean() - 1).abs() < 0.05 if name != "none" else torch.equal(x, y)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: activations.activation("gelo"), r"no activation 'gelo' \(did you mean 'gelu'\?\)"),
        (lambda: norms.norm("layr", 8), r"no norm 'layr' \(did you mean 'layer'\?\)"),
        (lambda: module_class("BasicBlock")(8, 4), "cannot narrow 8 channels to 4"),
        (lambda: module_class("BasicBlock")(8, 16, shortcut="projct"), r"did you mean 'project'\?"),
        (lambda: module_class("PatchEmbedding")(3, 8, size=4, patch=8), "is smaller than a patch of 8"),
        (lambda: module_class("PatchEmbedding")(3, 8, 8, 2)(torch.zeros(1, 3, 16, 16)), "64 patches.* 16"),
    ],
)
def test_what_is_wrong_is_said(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_blocks_are_modules_on_their_own():
    net = nn.Sequential(module_class("Conv")(3, 8), module_class("ClassifyHead")(8, 2))
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2)
