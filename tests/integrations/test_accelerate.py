"""The real Accelerator: no bit changes, the loss is the whole step's, trackers and trigger are its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import unvanish
from unvanish.probes.errors import CheckError

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from accelerate.state import AcceleratorState  # noqa: E402 - only where Accelerate is

from unvanish.integrations.accelerate import AccelerateWatch  # noqa: E402

X = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


def train(watch: Any = None, kind: type[nn.Module] = nn.ReLU, **options: Any) -> SimpleNamespace:
    """Two epochs; `options`: of the Accelerator, and clip, broken (a batch), lr."""
    AcceleratorState._reset_state(True)
    clip, broken, lr = options.pop("clip", 0), options.pop("broken", -1), options.pop("lr", 0.05)
    accelerator = accelerate.Accelerator(cpu=True, **options)
    torch.manual_seed(0)
    widths = [16, *[32] * (12 if kind is nn.Sigmoid else 3)]
    hidden = [layer for width in widths[:-1] for layer in (nn.Linear(width, 32), kind())]
    net = nn.Sequential(*hidden, nn.Dropout(0.1), nn.Linear(32, 4))
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    model, optimizer, loader = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=lr), loader)
    watching = watch(accelerator, model, optimizer) if watch else None
    losses: list[float] = []
    for _ in range(2):
        for x, y in loader:
            x = x * torch.nan if len(losses) == broken else x
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
            if accelerator.check_trigger():
                break
    if watching is not None:
        watching.close()
    return SimpleNamespace(
        losses=losses, net=net, watch=getattr(watching, "watch", watching), holder=watching
    )


@pytest.mark.parametrize("plain", [False, True], ids=["AccelerateWatch", "unvanish.watch"])
@pytest.mark.parametrize(
    "options", [{}, {"clip": 0.05}, {"gradient_accumulation_steps": 2}, {"mixed_precision": "bf16"}], ids=str
)
def test_no_bit_changes_and_the_loss_is_the_whole_steps(options: dict[str, Any], plain: bool) -> None:
    def attach(accelerator: Any, model: Any, optimizer: Any) -> Any:
        if plain:
            return unvanish.watch(model, optimizer, every=1, on_finding="silent")
        return AccelerateWatch(accelerator, model, optimizer, every=1, on_finding="silent")

    alone, watched = train(**options), train(attach, **options)
    assert watched.losses == alone.losses
    assert all(map(torch.equal, watched.net.parameters(), alone.net.parameters()))
    assert watched.watch.findings == []
    parts = options.get("gradient_accumulation_steps", 1)
    history = watched.watch.history.steps.columns()
    means = torch.tensor(watched.losses).view(-1, parts).mean(1)
    assert torch.allclose(torch.from_numpy(history["loss"]).float(), means)
    assert (history["clipped"] == ("clip" in options)).all()


def test_faults_are_named_and_pull_the_trigger() -> None:
    def attach(*given: Any) -> Any:
        return AccelerateWatch(*given, on_finding="silent", stop=True)

    sick = train(attach, nn.Sigmoid)
    assert [f.code for f in sick.watch.findings] == ["ACT002"]
    assert sick.watch.steps == 3 + 8  # the first epoch was ended
    fast = train(lambda *given: AccelerateWatch(*given, on_finding="silent", every=1), lr=5.0)
    assert fast.watch.findings[0].code in ("OPT001", "OPT008")


def test_a_broken_batch_is_left_out() -> None:
    broken = train(lambda *given: AccelerateWatch(*given, on_finding=("silent", "guard")), broken=5)
    assert [f.code for f in broken.watch.findings] == ["NUM001"]
    assert all(bool(p.isfinite().all()) for p in broken.net.parameters())


def test_trackers_get_the_numbers_and_one_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, dict[str, float]]] = []

    def track(self: Any, values: dict[str, float], step: int | None = None) -> None:
        told.append((step or 0, values))
        if len(told) == 2:
            raise OSError("no connection")

    monkeypatch.setattr(accelerate.Accelerator, "log", track)

    def attach(accelerator: Any, model: Any, optimizer: Any) -> Any:
        accelerator.trackers = [object()]
        return AccelerateWatch(accelerator, model, optimizer, on_finding="silent", log=4)

    with pytest.warns(RuntimeWarning, match="a tracker failed .OSError: no connection"):
        done = train(attach)
    assert [step for step, _ in told] == [4, 8]
    assert told[0][1]["unvanish/loss"] == done.losses[3]
    assert done.watch.steps == 16


def test_it_is_a_context_and_wants_an_accelerator() -> None:
    AcceleratorState._reset_state(True)
    accelerator, net = accelerate.Accelerator(cpu=True), nn.Linear(4, 4)
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    with pytest.raises(ZeroDivisionError), AccelerateWatch(accelerator, model, optimizer) as watch:
        raise ZeroDivisionError
    assert watch.watch.closed
    with pytest.raises(CheckError, match="not an accelerate"):
        AccelerateWatch(model, optimizer, None)


def test_findings_go_to_accelerate_s_logger(hear: Any, capsys: pytest.CaptureFixture[str]) -> None:
    records = hear("accelerate")
    train(AccelerateWatch, nn.Sigmoid)
    told = [r for r in records if "ACT002" in r.getMessage()]
    assert [(r.levelname, r.name) for r in told] == [("ERROR", "accelerate.unvanish")]
    assert "ACT002" not in capsys.readouterr().err
