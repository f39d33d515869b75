"""The script of a prescription is complete: for every cure it runs as it stands, and does what it should."""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unvanish.clinic.prescription import Prescription, PrescriptionError, apply
from unvanish.core.diagnosis import Remedy
from unvanish.cures import cures

IN_FORWARD = {"add-skips", "remove-detach", "swap-activation", "qk-norm"}  # the lines are a comment
SAME = {"deepnorm", "fixup", "nfnet", "shrink-output-layer", "zero-bias", "zero-init-branches", "admin"}


def run(name: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The case's model after every function was called, the names of the user, and the script's own names."""
    case, remedy = cures()[name].case()
    x, y = case.batch if isinstance(case.batch, tuple) else (case.batch, None)
    own: dict[str, Any] = {}
    exec(compile(Prescription((remedy,)).script(), "cure.py", "exec"), own)
    optimizer = torch.optim.SGD(list(case.model.parameters())[:1], 1e-3)
    given = {"model": case.model, "optimizer": optimizer, "loss_fn": case.loss, "x": x, "y": y}
    if name == "clip-gradient":
        case.loss(case.model(x), y).backward()
    torch.manual_seed(0)
    for function in [f for f in own.values() if inspect.isfunction(f)]:
        value = function(**{word: given[word] for word in inspect.signature(function).parameters})
        if "scaler" in function.__name__:
            given["scaler"] = value
        elif isinstance(value, Tensor) and value.ndim == 0:
            given["loss"] = value
        elif "x" in inspect.signature(function).parameters and isinstance(value, Tensor):
            given["h"] = value
    return case.model, given, own


@pytest.mark.parametrize("name", list(cures()))
def test_the_script_of_a_cure_runs_as_it_stands(name: str) -> None:
    model, given, own = run(name)
    functions = [f for f in own.values() if inspect.isfunction(f)]
    assert bool(functions) == (name not in IN_FORWARD)
    assert all(f.__doc__ for f in functions)
    if "loss" in given:
        assert bool(torch.isfinite(given["loss"]))
    x = given["x"].to(next(model.parameters()).dtype) if given["x"].is_floating_point() else given["x"]
    assert bool(torch.isfinite(model(x) if not isinstance(model(x), tuple) else model(x)[0]).all())


@pytest.mark.parametrize("name", list(cures()))
def test_nothing_in_a_script_is_read_that_it_was_not_given(name: str) -> None:
    tree = ast.parse(Prescription((cures()[name].case()[1],)).script())
    calls = ast.get_docstring(tree)
    assert calls is not None and calls.startswith("What `unvanish cure` found")
    for part in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        known = {*dir(builtins), "torch", "nn"}
        known |= {
            a.arg for f in ast.walk(part) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for a in f.args.args
        }
        known |= {n.id for n in ast.walk(part) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        known |= {n.name for n in ast.walk(part) if isinstance(n, ast.FunctionDef)}
        read = {n.id for n in ast.walk(part) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert not read - known, part.name


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_script_does_what_the_cure_does(name: str) -> None:
    case, remedy = cures()[name].case()
    ours = copy.deepcopy(case.model)
    apply(ours, [remedy], batch=case.batch, loss=case.loss)
    theirs, _, _ = run(name)
    for (path, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), path


def test_a_script_says_where_each_function_belongs() -> None:
    table = cures()
    remedies = [
        table[n].case()[1]
        for n in ("clip-gradient", "zero-bias", "standardise-input", "flip-sign", "warm-up")
    ]
    script = Prescription(tuple(remedies)).script()
    order = script.partition("# in your training script:\n")[2].splitlines()
    assert [line.partition("  # ")[0] for line in order] == [
        "# zero_bias(model)",
        "# warm_up = make_warm_up(optimizer)",
        "# x = standardise_input(x)",
        "# loss = flip_sign(model, loss_fn, x, y)",
        "# clip_gradient(model)",
    ]


def test_a_cure_of_two_steps_is_one_function_and_one_that_returns_has_another_name() -> None:
    bias, noise = cures()["zero-bias"].case()[1], cures()["add-noise"].case()[1]
    script = Prescription((bias, replace(bias, targets=("2.bias",)), noise, bias)).script()
    names = [node.name for node in ast.parse(script).body if isinstance(node, ast.FunctionDef)]
    assert names == ["zero_bias", "add_noise", "zero_bias_2"]


def test_a_reason_cannot_end_its_comment() -> None:
    bias = replace(cures()["zero-bias"].case()[1], why="why\nINJECTED = 1\r\u2028INJECTED = 2")
    own: dict[str, Any] = {}
    exec(Prescription((bias,)).script(), own)
    assert "INJECTED" not in own


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(PrescriptionError):
        Prescription((Remedy("clip-gradient", (), "", parameters={"limit": "many"}),)).script()


def test_a_saved_script_is_a_module(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.py"
    path.write_text(Prescription((cures()["add-noise"].case()[1],)).script())
    command = [sys.executable, "-c", "import by_hand; print(by_hand.add_noise.__doc__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("Once, before the optimizer"), done.stderr
