"""A look into a compiled model: the numbers of an eager look, the same run, no graph more."""

from __future__ import annotations

import copy
import io
import math
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import unvanish
from unvanish.core.trace import STATISTICS, Trace
from unvanish.probes.live import taps
from unvanish.probes.live.tapped import Compiler, find_compilers, find_places

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch's compiler imports warns by itself
BACKENDS = ["eager", "aot_eager"]


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.up, self.act = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU()
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Stream(nn.Module):
    """A residual stream, with a saturated end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks = nn.Linear(8, 16), nn.ModuleList(Block() for _ in range(2))
        self.squash, self.head = nn.Tanh(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.squash(30 * x))


class Checkpointed(Stream):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.head(self.squash(x))


class Mapped(Stream):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.func.vmap(self.first)(x).tanh())


class Chosen(Stream):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(torch.cond(x.sum() > 0, lambda z: self.blocks[0](z), lambda z: z.tanh(), (x,)))


class Repeated(Stream):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks[0](self.blocks[0](self.first(x))))


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Flatten(),
        nn.Linear(32, 3),
    )  # fmt: skip


class Run:
    """A training of five steps: its losses, its weights, what torch compiled, its watch."""

    def __init__(
        self,
        make: Callable[[], nn.Module],
        compile_it: Callable[[nn.Module], nn.Module | None] = lambda m: None,
        losses: Callable[..., list[Tensor]] | None = None,
        between: Callable[..., None] | None = None,
        watched: bool = True,
        **options: Any,
    ) -> None:
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(0)
        self.model = make()
        called = self.model if (made := compile_it(self.model)) is None else made
        optimizer = torch.optim.SGD(self.model.parameters(), 0.05)
        options = {"every": 2, "on_finding": "silent", **options}
        self.watch: Any = unvanish.watch(called, optimizer, **options) if watched else None
        self.losses = []
        torch.manual_seed(1)
        for step in range(5):
            x, y = torch.randn(6, 8), torch.randint(3, (6,))
            optimizer.zero_grad()
            parts = losses(called, x, y) if losses else [nn.functional.cross_entropy(called(x), y)]
            torch.stack(parts).sum().backward()
            optimizer.step()
            self.losses += [float(part.detach()) for part in parts]
            if between is not None:
                between(self, called, step)
        self.weights = [p.detach().clone() for p in self.model.parameters()]
        self.graphs = counters["stats"]["unique_graphs"]
        self.breaks = sum(counters["graph_break"].values())
        if watched:
            self.trace: Trace = self.watch.diagnosis().trace
            self.watch.close()
            assert not self.watch.failure, self.watch.guard.traceback

    def seen(self) -> dict[tuple[Any, ...], dict[str, float]]:
        """The statistics of the last look, by site."""
        return {
            (s.path, s.kind, s.call): {name: self.trace.value(i, name) for name in STATISTICS}
            for i, s in enumerate(self.trace.sites)
            if s.role == "node"
        }


def compiles(backend: Any, **options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda m: torch.compile(m, backend=backend, **options)


def assert_same(run: Run, alone: Run) -> None:
    assert run.losses == alone.losses
    assert all(map(torch.equal, run.weights, alone.weights))
    assert (run.graphs, run.breaks) == (alone.graphs, alone.breaks)


def assert_equal(seen: dict[Any, dict[str, float]], known: dict[Any, dict[str, float]]) -> None:
    for key in seen.keys() & known.keys():
        for name, value in known[key].items():
            if name != "log_z":  # of the whole output, which no tap sees
                assert seen[key][name] == pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True), (key, name)
        assert math.isfinite(seen[key]["backward_log"])


def on_axis(run: Run) -> set[str]:
    depth = run.trace.depth()
    return set() if depth is None else {run.trace.sites[i].path for i in depth.sites}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [Stream, convolutional])
def test_it_sees_what_an_eager_look_sees_in_one_graph_without_a_break(
    backend: str, make: Callable[[], nn.Module]
) -> None:
    alone = Run(make, compiles(backend, fullgraph=True), watched=False)
    run, eager = Run(make, compiles(backend, fullgraph=True)), Run(make)
    assert_same(run, alone)
    assert run.graphs == 1 and run.breaks == 0
    seen, known = run.seen(), eager.seen()
    assert len(seen.keys() & known.keys()) >= 3
    assert any(kind == "relu" for _, kind, _ in seen.keys() & known.keys())
    assert_equal(seen, known)
    assert on_axis(run) == on_axis(eager) != set()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_shows_its_layers_and_computes_the_same() -> None:
    alone = Run(Stream, compiles("inductor", fullgraph=True), twice, watched=False)
    run, eager = Run(Stream, compiles("inductor", fullgraph=True), twice), Run(Stream, losses=twice)
    assert_same(run, alone)
    assert run.graphs == 1 and run.breaks == 0
    seen = run.seen()
    assert {path for path, _, _ in seen} >= {"first", "head"} and {kind for _, kind, _ in seen} == {"Linear"}
    last = {key: {"backward_zero": values["backward_zero"]} for key, values in eager.seen().items()}
    assert_equal(seen, last)
    asked = Run(Stream, compiles("inductor"), compiled=True)
    assert_equal(asked.seen(), Run(Stream).seen())
    assert on_axis(asked) == on_axis(eager)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_in_half_precision_is_left_alone() -> None:
    def half(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return [nn.functional.cross_entropy(model(x), y)]

    run = Run(Stream, compiles("inductor", fullgraph=True), half)
    assert_same(run, Run(Stream, compiles("inductor", fullgraph=True), half, watched=False))
    assert not run.seen() and any("half precision" in note for note in run.watch.notes)


def test_inductor_is_looked_into_only_if_it_must_make_one_graph() -> None:
    for options, refused in (({"fullgraph": True}, False), ({}, True)):
        model = torch.compile(Stream(), **options)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with unvanish.watch(model, optimizer, on_finding="silent") as watch:
            hooks = any(m._forward_hooks for m in model.modules())
            assert hooks is not refused
            assert any("compiled=True" in note for note in watch.notes) is refused
        assert not any(m._forward_hooks for m in model.modules())


def test_saturation_and_silence_are_seen() -> None:
    def make() -> nn.Module:
        model = Stream()
        nn.init.constant_(model.blocks[0].up.bias, -100.0)
        return model

    seen = Run(make, compiles("eager", fullgraph=True), every=1).seen()
    assert seen["squash", "tanh", 0]["saturated"] > 0.5
    assert seen["blocks.0.act", "relu", 0]["forward_rms"] == 0
    assert seen["blocks.0.act", "relu", 0]["backward_zero"] < 1


def twice(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    return [nn.functional.cross_entropy(model(z), y) for z in (x, 0.5 * x)]


def accumulated(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    for part in x.chunk(2):
        model(part).square().mean().backward()
    return [nn.functional.cross_entropy(model(x), y)]


def grown(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
    size = 3 + int(100 * float(x[0, 0].abs())) % 3
    return [nn.functional.cross_entropy(model(x[:size]), y[:size])]


@pytest.mark.parametrize(
    ("make", "losses"),
    [
        (Stream, twice),
        (convolutional, accumulated),
        (small, grown),
        (Checkpointed, None),
        (Mapped, None),
        (Chosen, None),
        (Repeated, None),
    ],
)
def test_the_run_is_the_one_without_a_watch(make: Any, losses: Any) -> None:
    alone = Run(make, compiles("aot_eager", fullgraph=True), losses, watched=False)
    run = Run(make, compiles("aot_eager", fullgraph=True), losses)
    assert_same(run, alone)
    assert any(math.isfinite(s["backward_log"]) for s in run.seen().values())


def test_a_module_called_twice_is_no_site() -> None:
    assert {path for path, _, _ in Run(Repeated, compiles("eager", fullgraph=True)).seen()} == {
        "first",
        "head",
    }


def test_parts_compiled_by_themselves_share_a_graph_and_have_their_own_numbers() -> None:
    def parts(model: Any) -> None:
        for block in model.blocks:
            block.compile(backend="aot_eager", fullgraph=True)

    alone, run, eager = Run(Stream, parts, watched=False), Run(Stream, parts), Run(Stream)
    assert_same(run, alone)
    assert run.graphs == 1
    seen, known = run.seen(), eager.seen()
    for path in ("blocks.0.act", "blocks.1.act"):
        for name in ("forward_rms", "backward_log", "spread"):
            assert seen[path, "relu", 0][name] == pytest.approx(known[path, "relu", 0][name], rel=1e-4)


def test_module_compile_is_looked_into() -> None:
    def whole(model: Any) -> None:
        model.compile(backend="eager", fullgraph=True)

    run = Run(Stream, whole)
    assert_same(run, Run(Stream, whole, watched=False))
    assert run.trace.depth() is not None


def test_a_backend_that_is_not_known_leaves_the_parameters() -> None:
    def own(graph: Any, example: Any) -> Any:
        return graph

    run = Run(Stream, compiles(own))
    assert_same(run, Run(Stream, compiles(own), watched=False))
    assert not run.seen() and any(s.role == "parameter" for s in run.trace.sites)
    assert sum("activations are not looked at" in note for note in run.watch.notes) == 1
    assert not any(m._forward_hooks for m in run.model.modules())


def test_a_model_compiled_before_its_watch_is_not_compiled_again() -> None:
    def early(model: nn.Module) -> nn.Module:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        compiled(torch.randn(6, 8))
        return compiled

    run = Run(Stream, early)
    assert_same(run, Run(Stream, early, watched=False))
    assert sum("compiled before the watch came" in note for note in run.watch.notes) == 1
    assert not any(m._forward_hooks for m in run.model.modules())


def compiled_late() -> Callable[..., list[Tensor]]:
    """A loop that compiles its model in the first step, when it is watched."""
    late: list[Any] = []

    def called(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        late[:] = late or [torch.compile(model, backend="eager", fullgraph=True)]
        return [nn.functional.cross_entropy(late[0](x), y)]

    return called


def test_a_model_compiled_after_its_watch_began_gets_no_graph_more() -> None:
    run = Run(small, losses=compiled_late())
    assert_same(run, Run(small, losses=compiled_late(), watched=False))
    assert run.graphs == 1 and any("compiled" in note for note in run.watch.notes)


def test_it_can_be_refused_and_asked_for_before_compiling() -> None:
    assert not Run(Stream, compiles("eager"), compiled=False).seen()
    run = Run(small, losses=compiled_late(), compiled=True)
    assert len(run.seen()) == 3 and run.graphs == 1


def test_closing_compiles_nothing_and_the_next_watch_sees_again() -> None:
    later: list[Any] = []

    def between(run: Run, called: Any, step: int) -> None:
        if step == 2:
            run.watch.close()
        if step == 4 and run.watch is not None:
            optimizer = torch.optim.SGD(run.model.parameters(), 0.0)
            with unvanish.watch(called, optimizer, every=1, on_finding="silent") as again:
                for _ in range(2):
                    called(torch.ones(6, 8)).sum().backward()
                    optimizer.step()
                later.append(again.diagnosis().trace)

    run = Run(Stream, compiles("eager", fullgraph=True), between=between)
    assert run.graphs == 1
    (trace,) = later
    assert trace.depth() is not None and all(
        math.isfinite(trace.value(i, "backward_log")) for i in trace.depth().sites
    )


def test_what_fails_inside_a_graph_ends_the_watch_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("planted")

    alone = Run(Stream, compiles("aot_eager"), watched=False)
    monkeypatch.setattr(taps, "copy_part", fail)
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Stream()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    fast, losses = torch.compile(model, backend="aot_eager", fullgraph=True), []
    watch = unvanish.watch(fast, optimizer, every=1, on_finding="silent")
    torch.manual_seed(1)
    for _ in alone.losses:
        x, y = torch.randn(6, 8), torch.randint(3, (6,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(fast(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == alone.losses and "planted" in watch.failure


def test_copies_pickles_and_exports_hold_nothing_of_it() -> None:
    run = Run(Stream, compiles("eager"))
    written = io.BytesIO()
    torch.save(run.model, written)
    assert b"unvanish" not in written.getvalue()
    x = torch.randn(6, 8)
    copied = copy.deepcopy(run.model)
    assert torch.equal(copied(x), run.model(x))
    assert torch.equal(torch.compile(copied, backend="eager")(x), run.model(x))
    for strict in (False, True):
        program = torch.export.export(run.model, (x,), strict=strict)
        assert "unvanish" not in str(program.graph)


def test_layers_with_a_fused_path_in_evaluation_get_no_hook() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoder(layer, 1), nn.Linear(8, 3))
    assert [place.key[0] for place in find_places(model, whole=True)] == ["0", "2"]


def test_backends_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert find_compilers(model) == set()
    assert find_compilers(torch.compile(model, backend="aot_eager")) == {Compiler("aot_eager", False)}
    assert find_compilers(torch.compile(model, fullgraph=True)) == {Compiler("inductor", True)}
    assert find_compilers(torch.compile(model, backend=lambda graph, example: graph)) == {Compiler("", False)}
    model[0].compile(backend="eager", fullgraph=True)
    assert find_compilers(model) == {Compiler("eager", True)}


@pytest.mark.parametrize("shape", [(5,), (3, 4), (9, 3, 70), (2, 5, 7, 9), (2, 2, 2, 2, 2)])
def test_copying_asks_no_value_and_says_its_shape(shape: tuple[int, ...]) -> None:
    with FakeTensorMode() as mode:  # refuses whatever depends on data
        x, room = mode.from_tensor(torch.randn(shape)), mode.from_tensor(torch.zeros(taps.ROOM))
        taps.copy_part(x, room, mode.from_tensor(torch.tensor(True)))
    x, room = torch.randn(shape), torch.zeros(taps.ROOM)
    taps.copy_part(x, room, torch.tensor(False))
    assert not room.any()
    taps.copy_part(x, room, torch.tensor(True))
    samples, positions, units, count = taps.read_sizes(room[None])[0].tolist()
    assert count == x.numel() and room[: taps.CELLS].count_nonzero() == samples * positions * units
    assert room._version == 0  # a backward that saved it does not mind
    halves = [torch.zeros(taps.ROOM) for _ in range(2)]
    taps.copy_part(x.bfloat16(), halves[0], torch.tensor(True))
    taps.copy_part(x.bfloat16().double(), halves[1], torch.tensor(True))
    assert torch.equal(*halves)
