"""The contract of blocks: each runs, passes its gradient on, copies, pickles, and takes its state back.

Notable: the examples stand in the blocks' own files; a block without one fails.
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


def examples(cls):
    """The examples of a block's file, by class."""
    return getattr(inspect.getmodule(cls), "EXAMPLES", {})


# by name, what the blocks' files bring
CASES = {name: case for name, cls in blocks().items() if (case := examples(cls).get(cls)) is not None}


def made(name, device="cpu"):
    """A block and inputs for it."""
    torch.manual_seed(0)
    given, cls = CASES[name].arguments, module_class(name)
    inputs = [draw(x, device) for x in CASES[name].inputs]
    if "width_in" in inspect.signature(cls).parameters:
        given = {"width_in": inputs[0].shape[1 if inputs[0].ndim == 4 else -1], **given}
    with torch.device(device):
        return cls(**given), inputs


def draw(x, device):
    """An input of an example: random numbers of a shape, or token ids."""
    if isinstance(x[0], int):
        return torch.randn(x, device=device, requires_grad=True)
    return torch.tensor(x, device=device)


@pytest.mark.parametrize("name", blocks())
def test_its_file_brings_an_example(name):
    cls = blocks()[name]
    without = getattr(inspect.getmodule(cls), "NO_EXAMPLE", ())
    told = f"{cls.__module__} needs a line for {name} in EXAMPLES, or names it in NO_EXAMPLE"
    assert (name in CASES) != (cls in without), told


@pytest.mark.parametrize("name", CASES)
def test_its_docstring_says_something_and_its_file_names_a_source(name):
    cls = module_class(name)
    assert inspect.getdoc(cls) and cls.__doc__
    page = inspect.getmodule(cls).__doc__
    named = any(year in page for year in map(str, range(1985, 2027))) or "No paper" in page
    assert named, f"{cls.__module__} names no paper, nor says 'No paper'"


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_reaches_inputs_and_parameters(name):
    block, inputs = made(name)
    out = block(*inputs)
    assert tuple(out.shape) == CASES[name].output
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
    block, inputs = made(name, "meta")
    assert tuple(block(*inputs).shape) == CASES[name].output


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
    x = 3 + 5 * torch.randn(*((4, 5, 8) if dims == 1 else (4, 8, 6, 6)))
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
