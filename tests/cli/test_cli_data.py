"""--data, --input and --loss: every form is understood, what is made up is said, mistakes are named."""

from __future__ import annotations

import argparse

import pytest
import torch

CROSS = ("--loss", "cross_entropy")


@pytest.mark.parametrize("source", ["batch", "loader"])
def test_a_batch_or_the_first_of_a_loader(call, source):
    answer = call("check", "net.py:made", "--data", f"net.py:{source}", *CROSS)
    assert (answer.code, answer.err) == (0, "")
    assert "assumed" not in answer.out


def test_arrays_and_lists_become_tensors(call, folder):
    (folder / "arrays.py").write_text(
        "import numpy as np\npair = [np.ones((8, 10), np.float32) * np.arange(8)[:, None].astype(np.float32),"
        " np.arange(8) % 4]\n"
    )
    assert call("check", "net.py:made", "--data", "arrays.py:pair", *CROSS).code in (0, 1)


@pytest.mark.parametrize("source", ["one", "many"])
def test_records_are_read_by_name(call, folder, source):
    (folder / "records.py").write_text(
        "import dataclasses, torch\n\n\n@dataclasses.dataclass\nclass Record:\n    x: torch.Tensor\n"
        "    labels: torch.Tensor\n\n\none = Record(torch.randn(32, 10), torch.randint(4, (32,)))\n"
        "many = iter([one])\n"
    )
    answer = call("check", "net.py:made", "--data", f"records.py:{source}", *CROSS)
    assert answer.code == 0 and "labels of the batch is the target" in " ".join(answer.out.split())


def test_a_saved_batch(call, folder):
    torch.save([torch.randn(32, 10), torch.randint(4, (32,))], folder / "batch.pt")
    answer = call("check", "net.py:made", "--data", "batch.pt", *CROSS)
    assert (answer.code, answer.err) == (0, "")


def test_no_code_runs_from_a_saved_file(call, folder):
    torch.save(argparse.Namespace(x=1), folder / "object.pt")
    answer = call("check", "net.py:made", "--data", "object.pt")
    assert answer.code == 2
    assert "holds more than tensors and is not opened; save plain tensors" in answer.line


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 cut"])
def test_a_damaged_file(call, folder, content):
    (folder / "junk.pt").write_bytes(content)
    answer = call("check", "net.py:made", "--data", "junk.pt")
    assert answer.code == 2
    assert "junk.pt" in answer.line


def test_a_state_dict_is_no_batch(call, folder):
    torch.save({"first.weight": torch.zeros(2)}, folder / "state.pt")
    assert "looks like a state_dict" in call("check", "net.py:made", "--data", "state.pt").line


def test_random_input_is_stated(call):
    answer = call("check", "net.py:made", "--input", "10", "--batch-size", "4")
    assert answer.code == 0
    assert "assumed: input is random: standard normal float32, shape (4, 10), seed 0" in answer.out


def test_a_random_target_is_stated(call):
    answer = call("check", "net.py:made", "--input", "10", *CROSS, "--seed", "5")
    assert answer.code == 0
    assert "assumed: the target of cross_entropy is random: classes, seed 5" in answer.out


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits", "nll_loss"])
def test_every_such_loss_gets_a_target_that_suits_it(call, loss):
    assert call("check", "net.py:made", "--input", "10", "--loss", loss).code in (0, 1)


def test_ids_where_the_model_begins_with_a_table(call):
    answer = call("check", "net.py:Text", "--input", "7")
    assert answer.code in (0, 1)
    assert "ids below 50, shape (8, 7)" in answer.out


def test_several_inputs_take_the_names_of_forward(call):
    answer = call(
        "check", "-v", "net.py:Text", "--input", "7", "--input", "8", "--dtype", "long", "--dtype", "float"
    )
    assert answer.code in (0, 1)
    assert "assumed: scale is random: standard normal float32, shape (8, 8), seed 1" in answer.out


@pytest.mark.parametrize("loss", ["net.py:my_loss", "net:MyLoss"])
def test_a_loss_of_ones_own(call, loss):
    assert call("check", "net.py:made", "--data", "net.py:batch", "--loss", loss).code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--data nono.pt", ["there is no file nono.pt"]),
        ("--data foo", ["'foo' is neither FILE.py:callable nor FILE.pt"]),
        ("--data net.py:btach", ["--data net.py:btach", "did you mean 'batch'"]),
        ("--data net.py:empty", ["is empty: it yields no batch"]),
        ("--data net.py:three", ["gave 'int'", "a DataLoader is needed"]),
        ("--data net.py:raising", ["--data net.py:raising: raising() raised ValueError"]),
        ("--data net.py:my_loss", ["my_loss needs arguments (output, y)"]),
        ("--data net.py:batch --input 10", ["--data and --input are both given"]),
        ("--input 10x", ["--input '10x' is not a shape", "--input 3,224,224"]),
        ("--input 0", ["is not a shape"]),
        ("--input -3,4", ["is not a shape"]),
        ("--input 3,,4", ["is not a shape"]),
        ("--input 10 --input 10", ["forward names 1 (x)"]),
        ("--dtype long", ["give --input too"]),
        ("--input 10 --dtype flaot", ["did you mean 'float'", "bfloat16"]),
        ("--input 10 --dtype float --dtype long", ["--dtype is given 2 times for 1 of --input"]),
        (
            "--input 10 --loss cross_entrpy",
            ["not a loss of torch.nn.functional", "did you mean 'cross_entropy'"],
        ),
        ("--input 10 --loss relu", ["'relu' is not a loss"]),
        ("--input 10 --loss ctc_loss", ["needs its own kind of target; give --data with (x, y)"]),
        ("--input 10 --loss net.py:lsos", ["--loss net.py:lsos"]),
        ("--input 10 --loss net.py:three", ["--loss net.py:three gave 'int'"]),
    ],
)
def test_a_mistake_is_reported_in_one_line(call, arguments, expected):
    answer = call("check", "net.py:made", *arguments.split())
    assert (answer.code, answer.out) == (2, "")
    for part in expected:
        assert part in answer.line
