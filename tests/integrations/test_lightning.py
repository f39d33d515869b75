"""Lightning's real Trainer and Fabric: no bit changes, planted faults are named, a NaN batch is survived."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import unvanish

pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from unvanish.integrations import lightning as ours  # noqa: E402 - only where Lightning is

LightningWatch = ours.LightningWatch
X = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)
PRECISIONS: list[dict[str, Any]] = [
    {},
    {"gradient_clip_val": 0.1},
    {"accumulate_grad_batches": 2},
    {"precision": "bf16-mixed"},
]


def layers(kind: type[nn.Module], depth: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [layer for k in range(depth) for layer in (nn.Linear(16 if k == 0 else 32, 32), kind())]


def make(package: str, kind: type[nn.Module] = nn.ReLU, depth: int = 3, **options: Any) -> Any:
    """A module whose training_step calls its parts; what it did stands in `losses`."""
    base = importlib.import_module(package).LightningModule

    class Net(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(*layers(kind, depth), nn.Dropout(0.1))
            self.head = nn.Linear(32, 4)
            self.losses: list[float] = []
            self.automatic_optimization = not options.get("manual", False)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            if len(self.losses) == options.get("broken", -1):
                x = x * torch.nan
            if len(self.losses) == options.get("raises", -1):
                raise ValueError("the user's own")
            loss = nn.functional.cross_entropy(self.head(self.net(x)), y)
            self.losses.append(loss.item())
            self.log("train/loss", loss)
            if not self.automatic_optimization:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return {"loss": loss}

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=options.get("lr", 1e-2))

    return Net()


def fit(
    model: Any, watch: Any = None, package: str = "lightning.pytorch", epochs: int = 2, **options: Any
) -> Any:
    torch.manual_seed(1)
    loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
    quiet = {f"enable_{name}": False for name in ("checkpointing", "progress_bar", "model_summary")}
    trainer = importlib.import_module(package).Trainer(
        max_epochs=epochs,
        callbacks=watch,
        accelerator="cpu",
        logger=False,
        log_every_n_steps=1,
        **quiet,
        **options,
    )
    trainer.fit(model, loader)
    return trainer


def state(model: nn.Module) -> list[torch.Tensor]:
    return [t.clone() for t in model.state_dict().values()]


@pytest.mark.parametrize("options", PRECISIONS, ids=str)
def test_no_bit_changes_and_every_step_is_seen(options: dict[str, Any]) -> None:
    package = "lightning.pytorch"
    alone, watched = make(package), make(package)
    fit(alone, **options)
    callback = LightningWatch(every=1, on_finding="silent")
    trainer = fit(watched, callback, **options)
    assert watched.losses == alone.losses
    assert all(map(torch.equal, state(watched), state(alone)))
    watch = callback.watch
    assert watch.findings == []
    parts = options.get("accumulate_grad_batches", 1)
    assert watch.steps == len(watched.losses) // parts == trainer.global_step
    history = watch.history.steps.columns()
    means = torch.tensor(watched.losses).view(-1, parts).mean(1)
    assert torch.allclose(torch.from_numpy(history["loss"]).float(), means)
    clipped = bool(options.get("gradient_clip_val"))
    assert (history["clipped"][1:] == clipped).all()
    logged = trainer.callback_metrics
    assert float(logged["unvanish/loss"]) == pytest.approx(float(means[-1]))
    assert (float(logged["unvanish/gradient_norm"]) == pytest.approx(0.1, rel=1e-3)) is clipped
    assert "unvanish/flow_decades" in logged
    assert any(
        site.path.startswith("net.") and site.role == "node" for site in watch.diagnosis().trace.sites
    )  # net's, which was called


@pytest.mark.parametrize("manual", [False, True])
def test_a_tower_of_sigmoids_is_named_and_ends_the_training(manual: bool) -> None:
    callback = LightningWatch(on_finding="silent", stop=True)
    trainer = fit(make("lightning.pytorch", nn.Sigmoid, 12, manual=manual), [callback])
    assert [f.code for f in callback.watch.findings] == ["ACT002"]
    assert trainer.should_stop
    assert trainer.global_step == 3


def test_a_rate_100_times_too_large_is_named() -> None:
    callback = LightningWatch(on_finding="silent")
    fit(make("lightning.pytorch", lr=1.0), [callback])
    assert callback.watch.findings[0].code in ("OPT001", "OPT008")


@pytest.mark.parametrize("options", [*PRECISIONS, {"manual": True}], ids=str)
def test_a_broken_batch_is_left_out_and_named(options: dict[str, Any]) -> None:
    given = dict(options)
    model = make("lightning.pytorch", broken=4, manual=given.pop("manual", False))
    callback = LightningWatch(on_finding=("silent", "guard"))
    fit(model, [callback], **given)
    assert "NUM001" in [f.code for f in callback.watch.findings]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert torch.tensor(model.losses).isfinite().sum() == len(model.losses) - 1


def test_an_exception_detaches_and_passes() -> None:
    callback = LightningWatch(every=1, on_finding="silent")
    model = make("lightning.pytorch", raises=3)
    with pytest.raises(ValueError, match="the user's own"):
        fit(model, [callback])
    assert callback.watch.closed
    assert callback.watch.steps == 3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_other_package_takes_it_too() -> None:
    package = "pytorch_lightning"
    other = pytest.importorskip(package)
    callback = LightningWatch(on_finding="silent", stop="ACT002")
    assert isinstance(callback, other.Callback)
    trainer = fit(make(package, nn.Sigmoid, 12), callback, package=package)
    assert [f.code for f in callback.watch.findings] == ["ACT002"]
    assert trainer.global_step == 3


@pytest.mark.parametrize("options", [{}, {"stop": True}, {"every": 3}, {"on_finding": ("log", "guard")}])
def test_a_second_one_says_that_what_it_was_asked_for_is_idle(
    options: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    first, second = LightningWatch(), LightningWatch(**options)
    fit(make("lightning.pytorch"), [first, second], epochs=1)
    said = [str(w.message) for w in recwarn if "another LightningWatch came first" in str(w.message)]
    assert len(said) == bool(options) and first.watch.steps > 0 and second.watch is None


def test_copies_and_two_of_them() -> None:
    callback = LightningWatch(every=1, on_finding="silent", log=False)
    fit(make("lightning.pytorch"), [callback], epochs=1)
    second = pickle.loads(pickle.dumps(copy.deepcopy(callback)))
    assert type(second) is type(callback)
    trainer = fit(make("lightning.pytorch"), [callback, second], epochs=1)
    assert callback.watch.steps == 8
    assert second.watch is None
    assert [name for name in trainer.callback_metrics if name.startswith("unvanish")] == []


def test_a_trainer_is_watched_unasked_only_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from unvanish.integrations.lightning_factory import make_callbacks

    for value, count in ((None, 0), ("", 0), ("0", 0), ("1", 1)):
        monkeypatch.delenv("UNVANISH", raising=False)
        if value is not None:
            monkeypatch.setenv("UNVANISH", value)
        assert len(make_callbacks()) == count


def test_without_lightning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ours.PACKAGES:
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"unvanish\[lightning\]"):
        LightningWatch()


def test_check_takes_a_module_by_its_own_step_in_and_out_of_a_training() -> None:
    model = make("lightning.pytorch", nn.Sigmoid, 12)
    before = [f.code for f in unvanish.check(model, (X[:32], Y[:32])).findings]
    fit(model, epochs=1)
    after = [f.code for f in unvanish.check(model, (X[:32], Y[:32])).findings]
    assert before == after == ["ACT002"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_needs_no_callback(precision: str) -> None:
    from lightning.fabric import Fabric

    def run(watched: bool, kind: type[nn.Module] = nn.ReLU, broken: int = -1) -> Any:
        fabric = Fabric(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
        net = nn.Sequential(*layers(kind, 12 if kind is nn.Sigmoid else 3), nn.Linear(32, 4))
        model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=0.05))
        ways = ("silent", "guard") if broken >= 0 else "silent"
        watch = unvanish.watch(model, optimizer, every=1, on_finding=ways) if watched else None
        losses = []
        for step in range(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[:32] * (torch.nan if step == broken else 1)), Y[:32])
            fabric.backward(loss)
            fabric.clip_gradients(model, optimizer, max_norm=0.5, error_if_nonfinite=False)
            optimizer.step()
            losses.append(loss.item())
        if watch is not None:
            watch.close()
        return SimpleNamespace(losses=losses, watch=watch, net=net)

    alone, watched = run(False), run(True)
    assert watched.losses == alone.losses
    assert watched.watch.findings == []
    assert watched.watch.history.steps.columns()["loss"].tolist() == watched.losses
    assert watched.watch.watched.inner is watched.net
    assert [f.code for f in run(True, nn.Sigmoid).watch.findings][:1] == ["ACT002"]
    broken = run(True, broken=3)
    assert [f.code for f in broken.watch.findings] == ["NUM001"]
    assert torch.tensor(broken.losses[-1]).isfinite()


@pytest.mark.parametrize("package", ours.PACKAGES)
def test_findings_go_to_lightning_s_loggers_alone(
    package: str, hear: Any, tmp_path: Any, capsys: Any
) -> None:
    pytest.importorskip(package)
    records, texts = hear(package), []
    loggers = importlib.import_module(f"{package}.loggers")
    board = loggers.TensorBoardLogger(tmp_path)
    board.experiment.add_text = lambda *given: texts.append(given)
    module = importlib.import_module(package)
    trainer = module.Trainer(
        max_epochs=1, callbacks=LightningWatch(), accelerator="cpu", log_every_n_steps=1,
        logger=[board, loggers.CSVLogger(tmp_path)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(make(package, nn.Sigmoid, 12), DataLoader(TensorDataset(X, Y), batch_size=16))
    told = [r for r in records if "ACT002" in r.getMessage()]
    assert [(r.levelname, r.name) for r in told] == [("ERROR", f"{package}.unvanish")]
    assert [(tag, "ACT002" in text) for tag, text, _ in texts] == [("unvanish/findings", True)]
    assert "ACT002" not in capsys.readouterr().out
    rows = (tmp_path / "lightning_logs" / "version_1" / "metrics.csv").read_text()
    assert "unvanish/warnings" in rows
