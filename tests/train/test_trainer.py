"""The loop: what a step is, what stops a run, what it says and calls."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unvanish.train import Loaders, Model, TrainError
from unvanish.train.callbacks import EVENTS
from unvanish.train.checkpoint import saving
from unvanish.train.errors import Diverged

BARE = {"ema": False, "clip": 0, "warmup_epochs": 0, "schedule": "constant", "weight_decay": 0.0, "lr0": 0.1,
        "momentum": 0.0, "optimizer": "sgd"}  # fmt: skip


def test_the_loop_is_the_bare_loop(trained, network, loaders):
    data = loaders(shuffle=False, val=False)
    mine, theirs = network(dropout=0.0), network(dropout=0.0)
    trained(mine, data, epochs=2, **BARE)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    for _ in range(2):
        for x, y in data.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(theirs(x), y).backward()
            optimizer.step()
    for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def linear() -> nn.Module:
    """A network without batch statistics, for which accumulation is exact."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def test_accumulation_makes_the_steps_of_the_whole_batch(trained, loaders):
    whole, parts = linear(), linear()
    trained(whole, loaders(batch=32, shuffle=False), name="whole", epochs=2, **BARE)
    results = trained(parts, loaders(batch=8, shuffle=False), name="parts", epochs=2, accumulate=4, **BARE)
    assert results.steps == 6
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_an_epochs_end_gets_a_smaller_window(trained, loaders):
    assert trained(linear(), loaders(batch=32), epochs=1, accumulate=2).steps == 2  # 3 batches


def test_it_learns_and_keeps_the_best(trained, network, loaders):
    net = network()
    results = trained(net, epochs=12, lr0=0.01)
    assert results.metrics["accuracy"] > 0.9
    assert results.fitness == max(r["metrics/accuracy"] for r in results.rows) == results.metrics["accuracy"]
    assert results.best is not None and results.last is not None
    assert Model(net).val(loaders()).metrics["accuracy"] == pytest.approx(results.fitness)


def test_the_run_folder(trained, network, tmp_path):
    results = trained(network(), epochs=2, watch=True, plots=True, save_period=1)
    folder = tmp_path / "run"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    weights = {f"weights/{n}" for n in ("best.json", "best.safetensors", "last.json", "last.safetensors",
                                        "last.state.safetensors", "epoch1.safetensors")}  # fmt: skip
    own = {"args.yaml", "results.csv", "results.json", "results.png", "report.html", "run.sqlite"}
    assert (weights | own) <= names and not [n for n in names if n.endswith(".partial")]
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [r["epoch"] for r in rows] == ["1", "2"] and float(rows[1]["val/loss"]) > 0
    assert json.loads((folder / "results.json").read_text())["steps"] == results.steps == 12
    assert (folder / "results.png").read_bytes()[:4] == b"\x89PNG"
    text = str(results)
    assert "only 12 optimizer steps; expect little" in text and "the gradient was healthy at" in text


def test_folders_are_numbered_and_written_over_where_asked(trained, network, tmp_path):
    trained(network(), epochs=1, watch=True)
    assert trained(network(), epochs=1, watch=True).save_dir == tmp_path / "run2"
    again = trained(network(), epochs=1, watch=True, exist_ok=True)
    assert again.save_dir == tmp_path / "run"
    from unvanish.store import open_run

    assert open_run(tmp_path / "run").steps()["step"].tolist() == list(range(6))  # not those of before


def test_patience_ends_it(trained, network):
    results = trained(network(), epochs=50, patience=3, lr0=0.0)
    assert results.epochs == 4 and results.best_epoch == 1


def test_time_ends_it(trained, network):
    results = trained(network(), epochs=1000, time=1e-9)  # up after the first of six steps
    assert (results.epochs, results.steps) == (1, 1)
    assert "accuracy" in results.metrics and (results.save_dir / "weights" / "best.safetensors").exists()


def test_callbacks_come_in_order_and_each_one_comes(trained, network):
    model, seen = Model(network()), []
    for event in EVENTS:
        model.add_callback(event, lambda *_, event=event: seen.append(event))
    trained(model, epochs=1)
    steps = ["on_train_batch_start", "optimizer_step", "on_before_zero_grad", "on_train_batch_end"] * 6
    assert seen == [
        "on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start", "on_train_epoch_start",
        *steps, "on_train_epoch_end", "on_val_start", *["on_val_batch_start", "on_val_batch_end"] * 2,
        "on_val_end",
        "on_fit_epoch_end", "on_model_save", "on_train_end",
    ]  # fmt: skip
    with pytest.raises(TrainError, match="did you mean 'on_train_end'"):
        model.add_callback("on_train_edn", print)


def test_the_state_of_a_trainer_is_there_from_the_start(trained, network):
    model, seen = Model(network()), []

    def look(trainer):
        parts = {"run": trainer.run, **vars(trainer.run)}
        seen.append(
            (set(vars(trainer)), {k: set(vars(part)) for k, part in parts.items() if part is not None})
        )

    for event in ("on_train_start", "on_train_end"):
        model.add_callback(event, look)
    trained(model, epochs=2)
    assert seen[0] == seen[1] and max(map(len, (seen[0][0], seen[0][1]["run"]))) < 10


def test_callbacks_read_the_parts_by_name(trained, network):
    module, found = network(), {}
    model = Model(module)
    names = ("record", "plain", "inner", "guard", "watch", "stop")
    model.add_callback("on_train_end", lambda t: found.update({name: getattr(t, name) for name in names}))
    trained(model, epochs=1)
    assert found["plain"] is module and found["record"].step == 6 and math.isfinite(found["guard"].norm)
    assert isinstance(found["inner"], torch.optim.Optimizer) and found["watch"] is None and not found["stop"]


def test_a_callback_sees_the_clipped_gradient(trained, network):
    model, norms = Model(network()), []

    def look(trainer):
        grads = [p.grad for p in trainer.plain.parameters()]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    model.add_callback("optimizer_step", look)
    results = trained(model, epochs=1, clip=0.1)
    assert max(norms) == pytest.approx(0.1, rel=1e-4)
    assert results.rows[0]["gradient"] > 0.1  # the reported norm is that before clipping


class Spiky(nn.Module):
    """A network whose output is not finite on chosen calls."""

    def __init__(self, bad: range) -> None:
        super().__init__()
        self.norm, self.layer, self.bad, self.calls = nn.BatchNorm1d(8), nn.Linear(8, 4), bad, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
            x = x * (math.nan if self.calls in self.bad else 1.0)
        return self.layer(self.norm(x))


def test_steps_without_a_finite_gradient_are_left_out_and_counted(trained):
    results = trained(Spiky(range(3, 6)), epochs=2, lr0=0.05, watch=True)
    assert results.skipped == 3 and math.isfinite(results.loss)
    assert "3 of 12 steps had no finite gradient and were skipped" in results.verdict
    assert [f.code for f in results.findings] == ["NUM001"] and not results.healthy
    assert all(t.isfinite().all() for t in load_file(results.last).values() if t.is_floating_point())


def test_too_many_of_them_end_the_run_with_the_verdict(trained):
    with pytest.raises(Diverged) as caught:
        trained(Spiky(range(4, 100)), epochs=5, nonfinite=5, watch=True)
    text = str(caught.value)
    assert (
        "5 steps in a row had no finite gradient, the last one step 8 in epoch 2; NUM001 non-finite" in text
    )
    assert "try a lower lr0" in text


def test_a_finding_reaches_the_callback(trained):
    model, codes = Model(Spiky(range(3, 4))), []
    model.add_callback("on_finding", lambda trainer, finding: codes.append(finding.code))
    trained(model, epochs=1, watch=True)
    assert codes == ["NUM001"]


def test_smoothing_frozen_layers_and_half_precision(trained, network):
    net = network()
    before = net.body[0].weight.detach().clone()
    results = trained(net, epochs=3, label_smoothing=0.1, freeze=["body"], amp="bf16", lr0=0.01)
    assert torch.equal(net.body[0].weight, before) and results.epochs == 3
    assert results.rows[-1]["train/loss"] < results.rows[0]["train/loss"]


def test_without_validation_the_last_weights_count(trained, network, loaders):
    results = trained(network(), loaders(val=False), epochs=2)
    assert math.isnan(results.fitness) and results.best is not None and "no validation data" in str(results)
    assert results.best.read_bytes()[8:200] == results.last.read_bytes()[8:200]


def test_nothing_is_saved_where_nothing_is_to_be(trained, network, tmp_path):
    results = trained(network(), epochs=1, save=False)
    assert results.best is None and not list((tmp_path / "run" / "weights").iterdir())


def test_several_inputs(trained):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([a, b], 1))

    def batch(rows):
        a, b, y = zip(*rows, strict=True)
        return (torch.stack(a), torch.stack(b)), torch.stack(y)

    made = TensorDataset(torch.randn(32, 2), torch.randn(32, 4), torch.randint(0, 3, (32,)))
    loader = DataLoader(made, 8, collate_fn=batch)
    assert trained(Two(), Loaders(loader, loader, facts={"classes": 3}), epochs=1, watch=True).steps == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:7"}, "device='cuda:7' does not exist here; there are: cpu"),
        ({"device": [0, 1]}, "torchrun --nproc-per-node 2"),
        ({"sharding": "fsdp"}, "needs several processes"),
        ({"freeze": 9}, "the network has 2 layers"),
        ({"project": "/proc/nowhere"}, "cannot be made"),
        ({"pretrained": "nowhere.pt"}, "there is no checkpoint"),
    ],
)
def test_what_cannot_start_says_why(trained, network, arguments, message):
    with pytest.raises(TrainError) as caught:
        trained(network(), epochs=1, **arguments)
    assert message in str(caught.value)


def test_a_run_needs_data(network):
    with pytest.raises(TrainError, match="there is no data; give data="):
        Model(network()).train(epochs=1)


def test_a_full_disk_does_not_end_a_training(trained, tmp_path, network, monkeypatch):
    real, table = saving.save, tmp_path / "run" / "results.csv"

    def save(path, *rest, **more):
        if table.exists() and len(table.read_text().splitlines()) == 3:
            raise TrainError(f"the checkpoint {path} cannot be written: No space left on device")
        return real(path, *rest, **more)

    monkeypatch.setattr(saving, "save", save)
    with pytest.warns(RuntimeWarning, match="epoch 2 is not saved: .*No space left.*the training goes on"):
        results = trained(network(), epochs=4)
    assert results.epochs == 4 and results.best_epoch != 2
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 5
    assert load_file(tmp_path / "run" / "weights" / "last.safetensors")
