"""`watch`: it measures what is there, and the training does not notice it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish.clinic.watch import Watch
from unvanish.clinic.watch.pace import Pace
from unvanish.rules import _history
from unvanish.store import open_run


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("every", [1, 3, None])
def test_the_training_is_bit_identical(amp: bool, parts: int, every: int | None, net: Any, fit: Any) -> None:
    plain, watched = net(), net()
    a, _ = fit(plain, 7, amp=amp, parts=parts)
    b, _ = fit(watched, 7, look={"every": every, "on_finding": "silent"}, amp=amp, parts=parts)
    assert a == b
    for (name, p), q in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.LBFGS])
def test_a_closure_s_gradients_are_those_of_its_own_step(kind: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = kind(model.parameters(), 0.1, **({"max_iter": 3} if kind is torch.optim.LBFGS else {}))
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    norms: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    with unvanish.watch(model, optimizer, every=2, on_finding="silent") as watch:
        for _ in range(6):
            watch.step(optimizer.step(closure))
            norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())))
    seen = [math.exp(r["norm_log"]) for r in watch.history.steps.rows]
    assert seen == pytest.approx(norms, rel=1e-4)


def test_an_expensive_norm_is_read_in_parts_and_the_training_stays_bit_identical(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pace, "usual", 1e-3)  # on a busy machine the clock may see no time of the loop's own

    def wide() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.Linear(512, 4))

    def train(model: nn.Module, look: bool) -> tuple[list[float], Watch | None]:
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        torch.manual_seed(1)
        x, y = torch.randn(32, 64), torch.randint(0, 4, (32,))
        watch = unvanish.watch(model, optimizer, budget=1e-6, on_finding="silent") if look else None
        losses = []
        for _ in range(80):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if watch is not None:
                watch.step(loss)
            losses.append(loss.item())
        return losses, watch

    model = wide()
    losses, watch = train(model, True)
    assert watch is not None and losses == train(wide(), False)[0]
    rows = watch.history.steps.rows
    assert any(not r["exact"] for r in rows)
    watch.close()
    exact = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    assert math.exp(rows[-1]["norm_log"]) == pytest.approx(exact, rel=0.2)


def test_between_looks_and_afterwards_nothing_hangs_on_the_model(net: Any, data: Any, hooks: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = unvanish.watch(model, optimizer, every=3, on_finding="silent")
    before = {id(m): set(m.__dict__) for m in model.modules()}
    x, y = data()
    seen = []
    for _ in range(9):
        seen.append(hooks(model))
        nn.functional.cross_entropy(model(x), y).backward()
        assert hooks(model) <= 1  # of a step that is looked at: is there another forward?
        optimizer.step()
        optimizer.zero_grad()
    assert [n > 0 for n in seen] == [True, False, False] * 3
    watch.close()
    watch.close()
    assert hooks(model) == 0
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert before == {id(m): set(m.__dict__) for m in model.modules()}
    assert torch.nn.functional.has_torch_function is torch.overrides.has_torch_function


def test_an_exception_in_the_forward_leaves_nothing_behind(net: Any, data: Any, hooks: Any) -> None:
    class Broken(type(net())):  # type: ignore[misc]
        """Raises once."""

        bad = True

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if self.bad:
                raise RuntimeError("mine")
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model = Broken()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = data()
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        with pytest.raises(RuntimeError, match="mine"):
            model(x)
        assert not torch.overrides._is_torch_function_mode_enabled()
        model.bad = False
        for _ in range(3):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert watch.steps == 3 and hooks(model) == 0


def test_evaluation_is_not_a_step_and_not_looked_at(net: Any, data: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = data()
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for _ in range(3):
            model.eval()
            with torch.no_grad():
                model(x[:3])
            model.train()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert watch.steps == 3
    trace = watch.diagnosis().trace
    assert {s.facts["shape"][0] for s in trace.sites if s.role == "node"} == {16}


def plain_net(depth: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [p for _ in range(depth) for p in (nn.Linear(8, 8), nn.Tanh())]
    return nn.Sequential(*parts, nn.Linear(8, 4))


def test_what_it_measures_is_what_autograd_says() -> None:
    """Small activations are seen whole, so every number can be checked against a run by hand."""
    model = plain_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(5)
    x, y = torch.randn(8, 8), torch.randint(0, 4, (8,))
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for _ in range(3):
            optimizer.zero_grad()
            before = copy.deepcopy(model)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    trace = watch.diagnosis().trace
    held: dict[str, Tensor] = {}

    def hold(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            out.retain_grad()
            held[name] = out

        return hook

    for name, module in before.named_children():
        module.register_forward_hook(hold(name))
    before.zero_grad()
    loss = nn.functional.cross_entropy(before(x), y)
    loss.backward()
    for i in trace.where("node"):
        out = held[trace.sites[i].path].detach().double()
        grad = held[trace.sites[i].path].grad
        assert grad is not None
        assert trace.value(i, "backward_log") == pytest.approx(math.log(grad.double().norm()), abs=1e-5)
        assert trace.value(i, "forward_rms") == pytest.approx(float(out.square().mean().sqrt()), rel=1e-5)
        mean = out.mean(0)
        assert trace.value(i, "spread") == pytest.approx(float((out - mean).norm() / out.norm()), rel=1e-5)
        units = out / out.norm(dim=1, keepdim=True)
        cosine = (units @ units.T).fill_diagonal_(0).sum() / 56
        assert trace.value(i, "cosine") == pytest.approx(float(cosine), abs=1e-5)
    after = dict(model.named_modules())
    for i in trace.where("parameter"):
        old, new = dict(before.named_modules())[trace.sites[i].path], after[trace.sites[i].path]
        gradient = math.sqrt(sum(float(p.grad.double().square().sum()) for p in old.parameters()))
        change = math.sqrt(
            sum(
                float((p - q).detach().double().square().sum())
                for p, q in zip(new.parameters(), old.parameters(), strict=True)
            )
        )
        size = math.sqrt(sum(float(q.detach().double().square().sum()) for q in old.parameters()))
        assert trace.value(i, "gradient_log") == pytest.approx(math.log(gradient), abs=1e-5)
        assert trace.value(i, "norm_log") == pytest.approx(math.log(size), abs=1e-5)
        assert trace.value(i, "update_log") == pytest.approx(math.log(change / size), abs=1e-4)
    total = math.sqrt(sum(float(p.grad.double().square().sum()) for p in before.parameters()))
    watch.close()
    assert watch.history.steps.rows[-1]["norm_log"] == pytest.approx(math.log(total), abs=1e-5)


def test_the_depth_axis_is_the_stream(net: Any, fit: Any) -> None:
    model = net()
    _, watch = fit(model, 3, look={"every": 1, "on_finding": "silent"})
    assert watch is not None
    trace = watch.diagnosis().trace
    axis = trace.depth()
    assert axis is not None
    labels = [f"{trace.sites[i].path}:{trace.sites[i].kind}:{trace.sites[i].call}" for i in axis.sites]
    assert labels[0] == "head:Linear:0"
    assert [x for x in labels if x.startswith(":relu")] == [":relu:2", ":relu:1", ":relu:0"]
    assert not any(x.startswith("body") for x in labels)  # branches are no part of it
    assert labels[-1].startswith("stem.0")


def test_gradients_are_those_before_clipping_and_without_the_loss_scale(net: Any, fit: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    _, plain = fit(net(), 4, look={"every": 1, "on_finding": "silent"})
    _, scaled = fit(net(), 4, look={"every": 1, "on_finding": "silent"}, scaler=scaler, clip=1e9)
    assert plain is not None and scaled is not None
    for name in ("gradient_log", "backward_log", "update_log"):
        np.testing.assert_allclose(
            plain.diagnosis().trace.column(name), scaled.diagnosis().trace.column(name), atol=1e-3
        )
    _, clipped = fit(net(), 4, look={"every": 1, "on_finding": "silent"}, clip=1e-3)
    assert clipped is not None
    rows = clipped.history.steps.rows
    assert all(r["clipped"] == 1.0 for r in rows)
    assert all(r["norm_log"] == pytest.approx(math.log(1e-3), abs=1e-2) for r in rows)
    assert rows[0]["before_log"] == pytest.approx(plain.history.steps.rows[0]["norm_log"], abs=1e-4)


def test_clipped_steps_are_known_between_looks(net: Any, fit: Any) -> None:
    _, watch = fit(net(), 12, look={"every": 5, "on_finding": "silent"}, clip=1e-3)
    assert watch is not None
    assert [r["clipped"] for r in watch.history.steps.rows] == [1.0] * 12
    _, watch = fit(net(), 12, look={"every": 5, "on_finding": "silent"}, clip=1e3)
    assert watch is not None and {
        r["clipped"] for r in watch.history.steps.rows if r["clipped"] == r["clipped"]
    } == {0.0}


def test_steps_that_a_scaler_skips_are_steps(net: Any, fit: Any) -> None:
    class Loud(type(net())):  # type: ignore[misc]
        """Its gradients are fifty times larger."""

        def forward(self, x: Tensor) -> Tensor:
            return 50 * super().forward(x)

    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    torch.manual_seed(0)
    _, watch = fit(Loud(), 6, look={"every": 2, "on_finding": "silent"}, scaler=scaler)
    assert watch is not None
    skipped = [bool(r["skipped"]) for r in watch.history.steps.rows]
    assert watch.steps == 6 and skipped[0]
    assert [bool(r["finite"]) for r in watch.history.steps.rows] == [not s for s in skipped]
    assert "step" not in vars(scaler)
    assert watch.healthy  # finding its scale is what a scaler is for


def test_accumulated_parts_make_one_step() -> None:
    x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
    seen = []
    for parts in (1, 2):
        model = plain_net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
            for _ in range(3):
                optimizer.zero_grad()
                for px, py in zip(x.chunk(parts), y.chunk(parts), strict=True):
                    (nn.functional.cross_entropy(model(px), py) / parts).backward()
                optimizer.step()
        assert watch.steps == 3
        seen.append(watch.diagnosis().trace.column("gradient_log"))
    np.testing.assert_allclose(*seen, atol=1e-5)


def test_several_optimizers_share_a_step(net: Any, data: Any) -> None:
    model = net()
    rest = [*model.body.parameters(), *model.head.parameters()]
    both = [torch.optim.SGD(model.stem.parameters(), 0.1), torch.optim.Adam(rest)]
    x, y = data()
    with unvanish.watch(model, both, every=1, on_finding="silent") as watch:
        for _ in range(4):
            nn.functional.cross_entropy(model(x), y).backward()
            norm = float(
                torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            )
            for optimizer in both:
                optimizer.step()
                optimizer.zero_grad()
    assert watch.steps == 4
    assert watch.history.steps.rows[-1]["norm_log"] == pytest.approx(math.log(norm), abs=1e-5)
    held = {s.path for s in watch.diagnosis().trace.sites if s.role == "parameter"}
    assert held == {"stem.0", "stem.1", "body.0", "body.1", "body.2", "head"}


def test_without_an_optimizer_the_loop_makes_the_steps() -> None:
    model = plain_net()
    x, y = torch.randn(8, 8), torch.randint(0, 4, (8,))
    with unvanish.watch(model, every=1, on_finding="silent") as watch:
        for _ in range(4):
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
            watch.step(loss)
    assert watch.steps == 4
    assert np.isfinite(watch.diagnosis().trace.column("update_log")[-1])
    assert np.isfinite(_history.read_steps(watch.diagnosis().trace, "loss")).any()


def test_an_optimizer_that_makes_its_gradients_itself_is_no_fault() -> None:
    model = plain_net(2)
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)
    x, y = torch.randn(8, 8), torch.randint(0, 4, (8,))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for _ in range(4):
            optimizer.step(closure)
    assert watch.steps == 4 and watch.healthy
    assert all(math.isfinite(r["norm_log"]) for r in watch.history.steps.rows)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_are_watched(reentrant: bool) -> None:
    class Blocks(nn.Module):
        """Two checkpointed blocks."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            x = checkpoint(lambda z: torch.tanh(self.b(z)), x, use_reentrant=reentrant)
            return self.head(x)

    torch.manual_seed(0)
    model = Blocks()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(8, 8), torch.randint(0, 4, (8,))
    with unvanish.watch(model, optimizer, every=1, on_finding="silent") as watch:
        for _ in range(4):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    trace = watch.diagnosis().trace
    place = next(i for i, s in enumerate(trace.sites) if s.path == "a" and s.role == "node")
    assert np.isfinite(trace.value(place, "backward_log"))


def test_a_compiled_model_is_not_recompiled() -> None:
    model = plain_net(2)
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(8, 8), torch.randint(0, 4, (8,))
    nn.functional.cross_entropy(compiled(x), y).backward()
    optimizer.zero_grad()
    torch._dynamo.utils.counters.clear()
    with unvanish.watch(compiled, optimizer, every=2, on_finding="silent") as watch:
        for _ in range(6):
            nn.functional.cross_entropy(compiled(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not torch._dynamo.utils.counters["stats"].get("unique_graphs")
    assert not torch._dynamo.utils.counters["graph_break"]
    trace = watch.diagnosis().trace
    assert np.isfinite(trace.column("gradient_log")).all() and np.isfinite(trace.column("update_log")).all()


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_time_profiles_are_those_of_an_examination(kind: Any, tmp_path: Path) -> None:
    class Reader(nn.Module):
        """A recurrent layer and a head on its last step."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = kind(3, 12, 2, batch_first=True), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.core(x)[0][:, -1])

    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)  # the weights stay, so that they can be examined
    x, y = torch.randn(2, 9, 3), torch.randint(0, 4, (2,))
    with unvanish.watch(model, optimizer, run=tmp_path, every=1, on_finding="silent") as watch:
        for _ in range(6):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    seen = open_run(tmp_path).profiles()
    assert set(seen) == {"core.l0", "core.l1"}
    examined = unvanish.check(model, (x, y), nn.functional.cross_entropy, confirm=False, theory=False).trace
    for name, (_, states) in seen.items():
        places = examined.where("step", of=name)
        wanted = [examined.value(i, "state_log") for i in places]
        np.testing.assert_allclose(states[-1], wanted, rtol=1e-4, atol=1e-4)
    live = watch.diagnosis().trace
    assert len(live.where("step")) == 18
