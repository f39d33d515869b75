"""The eyes of a watched training: one forward and backward looked at, a block of numbers out.

Notable:
- Between looks nothing is attached anywhere. For a look, module hooks say whose turn it is and a torch
  function mode sees functional activations and attention; both are gone when the forward has ended, the
  tensor hooks go with the graph, and the last hook goes with the step.
- The first look maps the network: the dominators of its graph are the depth axis; they, the activations and
  the attentions become the sites. Later looks only copy a few evenly spaced numbers of each.
- All numbers of a look are reduced together on the device, in float64, and leave it in one transfer.
- Only forwards in training mode with gradients count, and of these the first one of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from unvanish.probes import families, graph, through_time
from unvanish.probes.calls import tensors_in
from unvanish.probes.forward import COMPOSITIONS
from unvanish.types import Axis, Site

SAMPLES, POSITIONS, UNITS = 8, 8, 64  # of an activation, evenly spaced
MOST = 64  # sites of each kind: depth axis, activations, attentions
SILENT = 12  # looks in a row without a response make a unit dead
SEEN = (
    *("forward_rms", "spread", "cosine", "forward_nonfinite", "backward_log", "backward_zero"),
    *("flushed", "dead", "saturated", "entropy", "logit_max"),
)
FLAT = {"tanh": 0.9747, "sigmoid": 0.4873, "hardtanh": 1.0, "hardsigmoid": 0.5, "softsign": 0.7764}
CENTRE = {"sigmoid": 0.5, "hardsigmoid": 0.5}
SMALLEST = 6.1e-5  # the smallest normal number of float16
NAMES: dict[Any, str] = {}  # the kind of each torch function, "" where it does not matter

SEQUENCES = 2  # of a batch whose time profile is followed

Key = tuple[str, str, int]


@dataclass
class Slot:
    """One site: its row, its kind, and how much of its activation is looked at."""

    row: int
    key: Key
    family: str
    shape: tuple[int, ...] = (1, 1, 1)
    numel: int = 1
    low: bool = False  # float16
    came: bool = False  # a gradient, in this look

    def place(self, buffer: Tensor) -> Tensor:
        """The part of a buffer (sites, SAMPLES, POSITIONS, UNITS) that this site fills, in its own shape."""
        own = buffer[self.row]
        if len(self.shape) == 4:
            own = own.view(own.shape[0], 2, -1, own.shape[-1])
        return own[tuple(slice(n) for n in self.shape)]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Samples, positions and units looked at."""
        return self.shape[0], math.prod(self.shape[1:-1]), self.shape[-1]


@dataclass
class Candidate:
    """Something a site could be made of, as the mapping forward saw it."""

    key: Key
    family: str
    node: Any
    shape: tuple[int, ...]


@dataclass
class Turn:
    """One call of a fused recurrent layer: a few sequences of it, and the gradients they get."""

    module: nn.RNNBase
    x: Tensor
    hx: Any
    gradients: dict[str, Tensor | None] = field(default_factory=dict)

    def kept(self, name: str, dim: int) -> Callable[[Tensor], None]:
        """A tensor hook that keeps a few sequences of a gradient under a name."""
        self.gradients[name] = None

        def hook(gradient: Tensor) -> None:
            self.gradients[name] = _few(gradient, dim).double()

        return hook

    def replayed(self) -> list[through_time.Profile]:
        """The profile of each layer and direction; empty where no gradient came."""
        states: Any = [g for k, g in self.gradients.items() if k.startswith("state")]
        if all(g is None for g in self.gradients.values()):
            return []
        if isinstance(self.module, nn.LSTM) and any(s is not None for s in states):
            like = next(s for s in states if s is not None)
            states = tuple(torch.zeros_like(like) if s is None else s for s in states)
        else:
            states = next((s for s in states if s is not None), None)
        return through_time.replay(
            self.module, (self.x, self.hx), self.gradients.get("output"), states, probes=1
        )


@dataclass
class Chart:
    """The sites of a network, in the order of its forward, and its depth axis."""

    slots: dict[Key, Slot] = field(default_factory=dict)
    sites: tuple[Site, ...] = ()
    axis: Axis | None = None


class Eyes(TorchFunctionMode):
    """Looks at a training step: `open` before its forward, `close` after its optimizer's step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.paths = {id(m): name for name, m in model.named_modules()}
        self.chart: Chart | None = None
        self.seconds = 0.0  # our own, of the present look
        self.after_backward: Callable[[], None] | None = None
        self._candidates: list[Candidate] | None = None
        self._handles: list[Any] = []
        self._stack: list[str] = []
        self._calls: dict[tuple[str, str], int] = {}
        self._depth = 0
        self._inside = self._done = self._busy = False
        self._batch: int | None = None
        self._ahead: Tensor | None = None
        self._back: Tensor | None = None
        self._attention: dict[int, Tensor] = {}
        self._quiet: Tensor | None = None
        self._kept: dict[str, Any] = {}
        self.profiling = False  # whether the next look follows the time steps of fused recurrent layers
        self._turns: dict[str, Turn] = {}

    # -- opening and closing

    def open(self) -> None:
        """Attach what a look needs; the next forward in training mode is looked at."""
        started = perf_counter()
        self.seconds = 0.0
        self._done = False
        self._attention = {}
        self._ahead = self._back = None
        self._turns = {}
        if not self._handles:
            self._handles = [
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ]
        self.seconds += perf_counter() - started

    def close(self) -> None:
        """Detach everything, whatever has been seen; harmless when repeated."""
        if self._inside:
            self._end()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._candidates = None

    # -- the forward

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if module is self.model:
            self._depth += 1
            if self._depth == 1 and not self._done and module.training and torch.is_grad_enabled():
                self._begin(args)
        if self._inside:
            self._stack.append(path)

    def _begin(self, args: Any) -> None:
        first = next((t for t in tensors_in(args, 2) if t.ndim), None)
        self._batch = None if first is None else int(first.shape[0])
        self._calls, self._stack = {}, []
        if self.chart is None:
            self._candidates = []
        functional = vars(torch.nn.functional)
        self._kept = {name: functional[name] for name in COMPOSITIONS}
        functional.update(dict.fromkeys(COMPOSITIONS, lambda *args: False))
        self._inside = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._inside = False
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        vars(torch.nn.functional).update(self._kept)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:
            return
        if self._inside:
            while self._stack and self._stack[-1] != path:  # what raised inside
                self._stack.pop()
            if self._stack:
                self._stack.pop()
            self._module_output(module, path, args, output)
        if module is self.model:
            self._depth -= 1
            if self._depth == 0 and self._inside:
                self._end()
                self._finish(output)

    def _module_output(self, module: nn.Module, path: str, args: Any, output: Any) -> None:
        if self.profiling and isinstance(module, nn.RNNBase) and path not in self._turns:
            self._follow_time(module, path, args, output)
        made = next((t for t in tensors_in(output, 1) if t.is_floating_point() and t.ndim), None)
        if made is not None and not isinstance(module, (nn.Flatten, nn.Identity, nn.Dropout)):
            self._busy = True
            try:
                self._meet(path, type(module).__name__, made, "module")
            finally:
                self._busy = False

    def _finish(self, output: Any) -> None:
        """The forward has ended: hooks go; the backward will come by the tensors' own."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if output is None:  # it raised
            self._candidates = None
            return
        started = perf_counter()
        self._done = True
        ends = [t for t in tensors_in(output, 2) if t.grad_fn is not None]
        if self._candidates is not None and ends:
            self.chart = charted(self._candidates, ends[0].grad_fn)
        self._candidates = None
        self._follow(ends)
        if self.after_backward is not None:  # an accumulated step has more forwards
            self._handles = [
                self.model.register_forward_hook(lambda m, a, out: self._follow(tensors_in(out, 2)))
            ]
        self.seconds += perf_counter() - started

    def _follow(self, ends: Iterable[Tensor]) -> None:
        """Hear of the end of the backward that begins at one of these."""
        end = next((t for t in ends if t.grad_fn is not None), None)
        if end is not None and self.after_backward is not None and torch.is_grad_enabled():
            end.register_hook(self._at_backward)  # type: ignore[no-untyped-call]

    def _at_backward(self, gradient: Tensor) -> None:
        if self.after_backward is not None:
            torch.autograd.Variable._execution_engine.queue_callback(self.after_backward)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._busy:
            return func(*args, **(kwargs or {}))
        kind = NAMES.get(func)
        if kind is None:
            name = families.plain_name(getattr(func, "__name__", ""))
            wanted = name in families.ACTIVATIONS or name in families.ATTENTION or name == "add"
            kind = NAMES[func] = name if wanted else ""
        result = func(*args, **(kwargs or {}))
        if kind and self._inside and isinstance(result, Tensor) and result.ndim > 1:
            path = self._stack[-1] if self._stack else ""
            if kind in families.ATTENTION:
                self._attend(path, kind, args, kwargs or {}, result)
            else:
                self._meet(path, kind, result, "activation" if kind != "add" else "add")
        return result

    def _key(self, path: str, kind: str) -> Key:
        call = self._calls[path, kind] = self._calls.get((path, kind), -1) + 1
        return path, kind, call

    def _meet(self, path: str, kind: str, made: Tensor, family: str) -> None:
        """A module's or an operation's result: note it, or look at it where it is a site."""
        started = perf_counter()
        key = self._key(path, kind)
        if self._candidates is not None:
            if made.grad_fn is not None:
                self._candidates.append(Candidate(key, family, made.grad_fn, tuple(made.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            self._look(slot, made)
        self.seconds += perf_counter() - started

    def _look(self, slot: Slot, made: Tensor) -> None:
        part = thin(made.detach(), self._batch)
        if part is None:
            return
        ahead, _ = self._buffers(made)
        slot.shape, slot.numel = tuple(part.shape), made.numel()
        slot.low = made.dtype == torch.float16
        slot.place(ahead).copy_(part)
        if made.requires_grad:
            made.register_hook(lambda g: self._look_back(slot, g))  # type: ignore[no-untyped-call]

    def _look_back(self, slot: Slot, gradient: Tensor) -> None:
        started = perf_counter()
        part = thin(gradient.detach(), self._batch)
        if part is not None and self._back is not None and tuple(part.shape) == slot.shape:
            slot.place(self._back).copy_(part)
            slot.came = True
        self.seconds += perf_counter() - started

    def _buffers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self._ahead is None or self._back is None:
            assert self.chart is not None
            shape = (len(self.chart.slots), SAMPLES, POSITIONS, UNITS)
            self._ahead = torch.zeros(shape, dtype=torch.float32, device=like.device)
            self._back = torch.zeros_like(self._ahead)
            for slot in self.chart.slots.values():
                slot.came = False
        return self._ahead, self._back

    def _attend(self, path: str, kind: str, args: Any, kwargs: Any, result: Tensor) -> None:
        if kind == "softmax" and (result.ndim < 3 or result.shape[-1] < 4):
            return
        started = perf_counter()
        key = self._key(path, kind)
        if self._candidates is not None:
            self._candidates.append(Candidate(key, "attention", None, tuple(result.shape)))
        elif self.chart is not None and (slot := self.chart.slots.get(key)) is not None:
            with torch.no_grad():
                logits = _some_logits(kind, args, kwargs)
                if logits is not None:
                    self._attention[slot.row] = sharpness(logits)
        self.seconds += perf_counter() - started

    def _follow_time(self, module: nn.RNNBase, path: str, args: Any, output: Any) -> None:
        """Keep a few sequences of a recurrent layer's input, and their gradients when they come."""
        started = perf_counter()
        x, hx = args[0], args[1] if len(args) > 1 else None
        if isinstance(x, Tensor) and x.ndim == 3:
            along = 0 if module.batch_first else 1
            turn = self._turns[path] = Turn(module, _few(x, along), _few(hx, 1))
            states = output[1] if isinstance(output[1], tuple) else (output[1],)
            for name, made, dim in (("output", output[0], along), *(("state", s, 1) for s in states)):
                if made.requires_grad:
                    keep = turn.kept(name if name == "output" else f"{name}{len(turn.gradients)}", dim)
                    made.register_hook(keep)
        self.seconds += perf_counter() - started

    # -- what was seen

    def profiles(self) -> list[tuple[str, str, through_time.Profile]]:
        """(name, kind, profile) of every recurrent layer that was followed; before the weights move."""
        found = []
        for path, turn in self._turns.items():
            made = turn.replayed()
            for p in made:
                name = f"{path}.l{p.layer}{'_reverse' if p.reverse else ''}" if len(made) > 1 else path
                found.append((name or "(model)", type(turn.module).__name__.lower(), p))
        self._turns = {}
        return found

    @torch.no_grad()
    def seen(self) -> Tensor | None:
        """The statistics `SEEN` of every site, shape (sites, len(SEEN)), float64 on the model's device.

        None where this look saw no forward, or was the one that mapped the network.
        """
        if self.chart is None or self._ahead is None or self._back is None:
            return None
        slots = list(self.chart.slots.values())
        device = self._ahead.device
        facts = [(*s.sizes, s.numel, s.low, s.came) for s in slots]
        sizes = torch.tensor(facts, dtype=torch.float64).to(device)
        found = torch.full((len(slots), len(SEEN)), math.nan, dtype=torch.float64, device=device)
        ahead, back = self._ahead.flatten(2), self._back.flatten(1)
        found[:, :4] = _forward(ahead, sizes)
        found[:, 4:7] = _backward(back, sizes, any(s.low for s in slots))
        found[:, 7] = self._dead(self._ahead, slots)
        found[:, 8] = _saturated(ahead.flatten(1), sizes, slots)
        for row, pair in self._attention.items():
            found[row, 9:] = pair.to(device)
        return found

    def _dead(self, ahead: Tensor, slots: Sequence[Slot]) -> Tensor:
        """Share of a rectifier's units that were silent in the last `SILENT` looks."""
        if self._quiet is None or self._quiet.device != ahead.device:
            self._quiet = torch.zeros(len(slots), UNITS, device=ahead.device)
        silent = ~ahead.any(2).any(1)
        self._quiet = torch.where(silent, self._quiet + 1, 0)
        units = torch.tensor([s.sizes[2] for s in slots], device=ahead.device)
        inside = torch.arange(UNITS, device=ahead.device)[None] < units[:, None]
        share = ((self._quiet >= SILENT) & inside).sum(1).double() / units
        able = torch.tensor([_rectifies(s.key[1]) for s in slots], device=ahead.device)
        return torch.where(able, share, math.nan)


def thin(x: Tensor, batch: int | None) -> Tensor | None:
    """At most (SAMPLES, POSITIONS, UNITS) evenly spaced elements of an activation, as a view.

    Images have their positions in two dimensions, so theirs has four: (SAMPLES, 2, POSITIONS / 2, UNITS).
    """
    if x.ndim == 0 or x.numel() == 0 or x.layout != torch.strided:
        return None
    size, stride = list(x.shape), list(x.stride())
    if batch and x.ndim > 1 and size[0] != batch and size[1] == batch:
        size[:2], stride[:2] = size[1::-1], stride[1::-1]
    if x.ndim == 1:
        order, most = [0], [SAMPLES]
    elif x.ndim == 2:
        order, most = [0, 1], [SAMPLES, UNITS]
    elif x.ndim == 3:
        order, most = [0, 1, 2], [SAMPLES, POSITIONS, UNITS]
    else:  # images: B, C, H, W...
        order, most = [0, 2, 3, 1], [SAMPLES, 2, POSITIONS // 2, UNITS]
    kept = [min(size[d], m) for d, m in zip(order, most, strict=True)]
    steps = [stride[d] * max(1, size[d] // m) for d, m in zip(order, most, strict=True)]
    if len(kept) < 3:  # samples, one position, units
        kept, steps = [kept[0], 1, *(kept[1:] or [1])], [steps[0], 0, *(steps[1:] or [0])]
    return x.as_strided(kept, steps, x.storage_offset())


def _few(value: Any, dim: int) -> Any:
    """A few sequences of a tensor, or of the tensors of a tuple."""
    if isinstance(value, tuple):
        return tuple(_few(v, dim) for v in value)
    return (
        value.detach().narrow(dim, 0, min(SEQUENCES, value.shape[dim])).clone() if value is not None else None
    )


def _every(size: int, wanted: int) -> int:
    return max(1, size // wanted)


def charted(candidates: Sequence[Candidate], end: Any) -> Chart:
    """Choose the sites: evenly over the depth axis, the activations and the attentions."""
    nodes = {c.node: c for c in reversed(candidates) if c.node is not None}  # the innermost of equals
    above = graph.walk(end)
    first = next((c.node for c in candidates if c.node in above.index), None)
    cuts = above.cuts(above.index[first]) if first is not None else []
    chain = [nodes[above.nodes[i]] for i in cuts if above.nodes[i] in nodes]
    axis = [chain[i] for i in _spread(len(chain), MOST)]
    firing = [c for c in candidates if c.family == "activation"]
    attending = [c for c in candidates if c.family == "attention"]
    chosen = {c.key for c in axis} | {firing[i].key for i in _spread(len(firing), MOST)}
    chosen |= {attending[i].key for i in _spread(len(attending), MOST)}
    kept = [c for c in candidates if c.key in chosen]
    slots = {c.key: Slot(row, c.key, c.family) for row, c in enumerate(kept)}
    sites = tuple(_site(c, row) for row, c in enumerate(kept))
    rows = tuple(slots[c.key].row for c in axis)
    return Chart(slots, sites, Axis("depth", "depth", rows) if len(rows) > 1 else None)


def _spread(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _site(candidate: Candidate, row: int) -> Site:
    path, kind, call = candidate.key
    facts: dict[str, Any] = {"shape": candidate.shape, "order": row, "family": candidate.family}
    if candidate.family == "activation":
        facts["rectifier"] = kind in families.RECTIFIERS
    if candidate.family == "attention":
        facts["tokens"] = candidate.shape[-2] if kind != "softmax" else candidate.shape[-1]
    return Site(path, kind, call, "node", facts)


def _rectifies(kind: str) -> bool:
    return kind in families.RECTIFIERS


def _forward(x: Tensor, sizes: Tensor) -> Tensor:
    """forward_rms, spread, cosine, forward_nonfinite of each site, (sites, 4); x is (sites, B, features)."""
    count, samples = sizes[:, :3].prod(1), sizes[:, 0]
    largest = x.abs().amax((1, 2))
    bad = torch.zeros_like(count)
    if not bool(largest.isfinite().all()) if x.device.type == "cpu" else True:
        bad = (~x.isfinite()).sum((1, 2)) / count
        x = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0)
        largest = x.abs().amax((1, 2))
    unit = x / torch.where(largest > 0, largest, 1.0)[:, None, None]  # nothing over- or underflows in float32
    lengths = unit.square().sum(2).double()  # of each sample
    squares = lengths.sum(1)
    mean = unit.sum(1) / samples[:, None].float()
    spread = ((squares - samples * mean.square().sum(1).double()).clamp_min(0) / squares).sqrt()
    directions = torch.einsum("sbf,sb->sf", unit, lengths.clamp_min(1e-300).rsqrt().float())
    cosine = (directions.square().sum(1).double() - samples) / (samples * (samples - 1))
    return torch.stack([(squares / count).sqrt() * largest, spread, cosine, bad], 1)


def _backward(g: Tensor, sizes: Tensor, any_low: bool) -> Tensor:
    """backward_log, backward_zero and flushed of each site, shape (sites, 3); NaN where none came."""
    count = sizes[:, :3].prod(1)
    size = g.abs()
    largest = size.amax(1)
    unit = g / torch.where(largest > 0, largest, 1.0)[:, None]
    logs = largest.double().log() + 0.5 * (unit.square().sum(1).double() * sizes[:, 3] / count).log()
    something = size.count_nonzero(1).double()
    zeros = 1 - something / count
    low = sizes[:, 4] > 0
    tiny = torch.full_like(logs, math.nan)
    if any_low:
        tiny = ((g != 0) & (size < SMALLEST)).sum(1) / something.clamp_min(1)
        tiny = torch.where(low, torch.where(something == 0, 1.0, tiny), math.nan)
    return torch.where(sizes[:, 5:6] > 0, torch.stack([logs, zeros, tiny], 1), math.nan)


def _saturated(x: Tensor, sizes: Tensor, slots: Sequence[Slot]) -> Tensor:
    """Share of elements in the flat regions of a squashing function; x (sites, elements)."""
    found = torch.full_like(sizes[:, 0], math.nan)
    rows = [i for i, s in enumerate(slots) if s.key[1] in FLAT]
    if rows:
        edge = torch.tensor([FLAT[slots[i].key[1]] for i in rows], device=x.device)[:, None]
        centre = torch.tensor([CENTRE.get(slots[i].key[1], 0.0) for i in rows], device=x.device)[:, None]
        flat = ((x[rows] - centre).abs() >= edge) & (x[rows] != 0)
        found[rows] = flat.sum(1) / sizes[rows, :3].prod(1)
    return found


def _some_logits(kind: str, args: Any, kwargs: Any) -> Tensor | None:
    """A few rows of attention logits, (rows, keys); what is masked is -inf."""
    if kind == "softmax":
        x: Tensor = args[0] if args else kwargs["input"]
        lead = math.prod(x.shape[:-1])
        return x.detach().reshape(lead, -1)[:: max(1, lead // 64)][:64].float()
    named = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
    named |= kwargs
    q, k, mask = named["query"].detach(), named["key"].detach(), named.get("attn_mask")
    if q.shape[-2] < 1 or k.shape[-2] < 4:
        return None
    rows = torch.arange(q.shape[-2], device=q.device)[:: _every(q.shape[-2], 8)][:8]
    some_q, some_k = q[..., rows, :], k
    if q.ndim > 3:
        heads = _every(q.shape[-3], 4)
        some_q = some_q[0, ::heads]
        ratio = q.shape[-3] // k.shape[-3]
        some_k = k[0].repeat_interleave(ratio, -3)[::heads] if ratio > 1 else k[0, ::heads]
    logits = some_q.float() @ some_k.float().mT * (named.get("scale") or 1 / math.sqrt(q.shape[-1]))
    if isinstance(mask, Tensor):
        part = mask.detach().expand(*q.shape[:-1], k.shape[-2])[..., rows, :]
        part = part[0, :: _every(q.shape[-3], 4)] if q.ndim > 3 else part
        logits = logits.masked_fill(~part, -math.inf) if part.dtype == torch.bool else logits + part.float()
    if named.get("is_causal"):
        hidden = torch.arange(k.shape[-2], device=q.device)[None] > rows[:, None]
        logits = logits.masked_fill(hidden, -math.inf)
    rows_of: Tensor = logits.flatten(0, -2)
    return rows_of


def sharpness(logits: Tensor) -> Tensor:
    """(entropy / ln(visible keys), largest |logit|) over rows that see four keys or more, shape (2,)."""
    visible = logits.isfinite() & (logits > -1e4)
    counts = visible.sum(-1)
    rows = (counts >= 4).double()
    p = logits.softmax(-1).double()
    nats = (
        -torch.where(p > 0, p * p.clamp_min(1e-300).log(), 0.0).sum(-1) / counts.clamp_min(2).double().log()
    )
    mean = torch.where(rows > 0, nats, 0.0).sum() / rows.sum()
    return torch.stack([mean, torch.where(visible, logits.abs(), 0.0).max().double()])
