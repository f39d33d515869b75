"""What a forward did, written down as a program of plain data for the theory: `Taped`.

Notable: weights stay where they are; of each, its squares are summed. Tensors are known by the node and the
output that made them. Parameters on the meta device are taken at PyTorch's own initialisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unvanish.probes import calls, operations
from unvanish.probes.forward import Forward, Modules, Operation
from unvanish.probes.measures import means
from unvanish.theory import recurrent
from unvanish.theory.activations import ALIASES, FUNCTIONS, NAMES
from unvanish.theory.convolution import Geometry
from unvanish.theory.program.steps import Program, Step
from unvanish.theory.recurrent import Cell

SETTINGS = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0), "celu": ("alpha", 1.0)}
ELEMENTWISE = frozenset((*NAMES, *ALIASES, *operations.ACTIVATIONS))


class Taped(Forward):
    """A forward that also writes down what was done; `ran`: the model itself, or a copy without numbers."""

    def __init__(
        self,
        model: nn.Module,
        ran: nn.Module,
        call: calls.Call,
        parameters: Mapping[str, Tensor] | None = None,
        norms: Mapping[str, float] | None = None,
        modules: Modules | None = None,
    ) -> None:
        own = dict(ran.named_parameters()) if parameters is None else parameters
        super().__init__(ran, call.batch_size, own, norms, modules)
        real = own if ran is model else dict(model.named_parameters())
        self.real = {id(p): real[name] for name, p in own.items()}
        self.model = model
        self.steps: list[Step] = []
        self.numbers: dict[tuple[Any, int], int] = {}
        self.held: list[Any] = []
        self.entered: dict[int, tuple[int, ...]] = {}
        self.named_inputs: dict[str, int] = {}
        passed = [*calls.tensors_in(call.args), *calls.tensors_in(call.kwargs)]
        floats = [t for t in passed if t.is_floating_point()]
        for name, tensor in zip(call.inputs, floats, strict=False):
            self.named_inputs[name] = self.number(tensor)
            self.entered[self.named_inputs[name]] = tuple(tensor.shape)

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """The model's buffers by name."""
        return dict(self.model.named_buffers())

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor: of its node's output, else of the object."""
        node = tensor.grad_fn
        key = (node, tensor.output_nr) if node is not None else (id(tensor), -1)
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.numbers)
            if node is None:
                self.held.append(tensor)  # so that its id stays its own
        return found

    def program(self, output: Any) -> Program:
        """What was done so far, for a model that returned this."""
        made = {self.number(t): tuple(t.shape) for t in calls.predictions(output) if t.requires_grad}
        return Program(tuple(self.steps), self.entered, made, self.batch or 1)

    def _known(self, tensor: Any) -> Tensor | None:
        """The real parameter behind a tensor of the copy, also behind a view of it."""
        found = self.real.get(id(tensor))
        if found is None and isinstance(tensor, Tensor) and (base := tensor._base) is not None:
            found = self.real.get(id(base))
        return found

    def _record(self, kind: str, start: int, args: Any, kwargs: Any, result: Any) -> Operation | None:
        operation = super()._record(kind, start, args, kwargs, result)
        if not self.in_loss:
            self._write(operation, kind, start, args, kwargs, result)
        return operation

    def _write(
        self, operation: Operation | None, kind: str, start: int, args: Any, kwargs: Any, result: Any
    ) -> None:
        """Add a step to the program."""
        made = calls.floats((result,), 2)
        given = calls.floats((*args, *kwargs.values()) if kwargs else args)
        weights: list[Tensor] = []
        reads: list[Tensor] = []
        for t in given:
            (weights if self._weight(t) else reads).append(t)
        if kind in operations.NORMS:
            reads = reads[:1]  # not the running statistics
        first = made[0] if made else None
        in_place = first is not None and any([t is first for t in reads]) and _new(first, start)
        written = first if in_place else None
        numbers: list[int] = []
        others: list[int] = []  # of what was read and is still what it was
        for t in reads:
            if t is written:
                numbers.append(self._before(t, start))
            else:
                numbers.append(self.number(t))
                others.append(numbers[-1])
        if not made or not (reads or any([self._known(t) is not None for t in given])):
            return
        fresh = [(n, tuple(t.shape)) for t in made if (n := self.number(t)) not in others]
        if not fresh:
            return
        facts = self._facts(kind, args, kwargs, given, reads, weights, result)
        into, sizes = zip(*fresh, strict=True)
        self.steps.append(
            Step(
                str(facts.pop("as", kind)),
                operation.family if operation is not None else operations.family(kind),
                tuple(numbers),
                into,
                tuple([tuple(t.shape) for t in reads]),
                sizes,
                facts,
                self.turn.path,
            )
        )

    def _before(self, tensor: Tensor, start: int) -> int:
        """The number of what a tensor was before it was written to in place."""
        node: Any = tensor.grad_fn
        if node is None or node._sequence_nr() < start or not node.next_functions:
            return self.number(tensor)
        below: tuple[Any, int] = node.next_functions[0]
        if below[0] is None:
            return self.number(tensor)
        return self.numbers.setdefault(below, len(self.numbers))

    @staticmethod
    def _key(tensor: Tensor) -> tuple[Any, int]:
        node = tensor.grad_fn
        return (node, tensor.output_nr) if node is not None else (id(tensor), -1)

    def _weight(self, tensor: Tensor) -> bool:
        if id(tensor) in self.real:
            return True
        if type(tensor) is Tensor and tensor._base is None:  # a plain result
            return False
        return self._known(tensor) is not None or isinstance(tensor, nn.Parameter)

    def _facts(
        self,
        kind: str,
        args: Any,
        kwargs: Any,
        given: list[Tensor],
        reads: list[Tensor],
        weights: list[Tensor],
        result: Any,
    ) -> dict[str, Any]:
        if kind in operations.LAYERS and weights and (kind not in operations.PRODUCTS or weights[0].ndim > 1):
            made = [] if any(w.ndim > 1 for w in weights) else [args[1]]
            return self._layer(kind, args, kwargs, [*made, *weights], result)
        if kind in operations.LAYERS and kind not in operations.PRODUCTS and len(args) > 1:
            return self._layer(kind, args, kwargs, [args[1]], result)  # weights made in the forward
        if kind in ELEMENTWISE:
            return self._activation(kind, args, kwargs, weights)
        if kind == "rdiv" and args[1] == 1:
            return {"as": "reciprocal", "settings": {}}
        if kind in FUNCTIONS:
            return self._function(kind, args, kwargs)
        if kind == "normalize":
            size = int(reads[0].shape[-1]) if reads else 1
            return {"gain": 1 / size, "eps": 0.0, "elements": size}
        if kind in operations.NORMS:
            return self._norm(kind, args, kwargs, weights, given)
        if kind in operations.FUSED:
            return self._recurrent(kind, args, reads)
        if kind == "embedding":
            return {"table_power": self._power(weights[0]) if weights else 1.0}
        if "pool" in kind:
            window = args[1] if len(args) > 1 else kwargs.get("kernel_size", 1)
            if kind.startswith("adaptive"):
                return {"window": math.prod(reads[0].shape) / max(1, math.prod(result_shape(result)))}
            n = reads[0].ndim - 2
            return {"window": math.prod(window) if isinstance(window, (tuple, list)) else window**n}
        if kind == "scaled_dot_product_attention":
            causal = bool(args[5] if len(args) > 5 else kwargs.get("is_causal", False))
            mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
            return {"scale": kwargs.get("scale"), "causal": causal or mask is not None}
        if kind in ("add", "sub", "mul", "div"):
            return self._constant(kind, args, weights, reads)
        return {}

    def _constant(self, kind: str, args: Any, weights: list[Tensor], reads: list[Tensor]) -> dict[str, Any]:
        """A number or a parameter that is added, or multiplied with."""
        if len(reads) > 1:
            return {}
        number = math.nan
        if weights:
            power, mean = self._moments(weights[0])
        else:
            number = next(
                (a for a in args if isinstance(a, (int, float))), 1.0 if kind in ("mul", "div") else 0.0
            )
            power, mean = float(number) ** 2, -float(number) if kind == "sub" else float(number)
        if kind == "div":
            first = isinstance(args[0], Tensor) and args[0] is (reads[0] if reads else None)
            if not first:
                return {"as": "reciprocal", "settings": {}} if number == 1 else {"power": 1.0, "mean": 0.0}
            power = 1 / power if power else 1.0
        if weights or kind == "sub":
            return {"power": power, "mean": mean}
        return {"power": power, "mean": mean, "number": 1 / (number or 1.0) if kind == "div" else number}

    def _power(self, tensor: Tensor) -> float:
        """Mean square of a parameter."""
        known = self._known(tensor)
        if known is None or known.is_meta:
            return 1.0
        norm = self._norm_of(tensor)
        if norm is None:
            norm = float(torch.linalg.vector_norm(known.detach(), dtype=torch.float64))
        return norm**2 / max(1, known.numel())

    def _moments(self, tensor: Tensor) -> tuple[float, float]:
        """Mean square and mean of a parameter."""
        known, norm = self._known(tensor), self._norm_of(tensor)
        if known is None or known.is_meta:
            return 1.0, 0.0
        if norm == 0:
            return 0.0, 0.0
        mean = self._means.get(id(known)) if norm is not None else None
        if norm is None or mean is None:
            return self._power(tensor), float(known.detach().mean(dtype=torch.float64))
        return norm**2 / known.numel(), mean

    @cached_property
    def _means(self) -> dict[int, float]:
        """The means of the vectors among the parameters, by id: all biases at once."""
        some = [p for p in self.real.values() if p.ndim == 1 and p.numel() and p.device.type == "cpu"]
        return dict(zip(map(id, some), means(some), strict=True))

    def _layer(self, kind: str, args: Any, kwargs: Any, weights: list[Tensor], result: Any) -> dict[str, Any]:
        weight = next(w for w in weights if w.ndim > 1)
        taps = self._taps(kind, weight, args, kwargs)
        bias = next((w for w in weights if w.ndim == 1), None)
        power, mean = (0.0, 0.0) if bias is None else self._bias(bias, weight)
        facts: dict[str, Any] = {"taps": taps, "bias_power": power, "bias_mean": mean}
        if "conv" in kind:
            facts["geometry"] = _geometry(kind, weight, args, kwargs)
        elif kind != "linear":
            facts["as"] = "linear"
        return facts

    def _bias(self, bias: Tensor, weight: Tensor) -> tuple[float, float]:
        known = self._known(bias)
        if known is not None and known.is_meta:
            return 1 / (3 * max(1, math.prod(weight.shape[1:]))), 0.0
        return self._moments(bias) if known is not None else (0.0, 0.0)

    def _taps(self, kind: str, weight: Tensor, args: Any, kwargs: Any) -> Any:
        """The squared weights by position of the kernel, summed over both channels, over the outputs."""
        known = self._known(weight)
        transposed = kind in operations.TRANSPOSED
        groups = (args[6] if len(args) > 6 else kwargs.get("groups", 1)) if transposed else 1
        outputs = operations.outputs(kind, weight.shape, groups)
        kernel = tuple(weight.shape[2:]) if "conv" in kind else ()
        if known is None and not weight.is_meta:
            known = weight
        if known is None:  # made in the forward, say by weight standardisation: taken as of unit gain
            return np.full(kernel, 1 / math.prod(kernel))
        if known.is_meta:
            fan_in = math.prod(weight.shape[1:])
            total = 1 / 3 * (1.0 if not transposed else weight.shape[0] / max(1, fan_in))
            return np.full(kernel, total / math.prod(kernel))
        whole = None if kernel else self._norm_of(weight)
        if whole is not None:
            return np.asarray(whole**2 / outputs)
        x = known.detach()
        share = weight.numel() / x.numel()  # a view holds a part of the parameter
        flat, dims = (x.flatten(2), (0, 1)) if kernel else (x.flatten(), None)
        squares = torch.linalg.vector_norm(flat, dim=dims, dtype=torch.float64) ** 2
        return (squares * share / outputs).cpu().numpy().reshape(kernel)

    def _activation(self, kind: str, args: Any, kwargs: Any, weights: list[Tensor]) -> dict[str, Any]:
        plain = ALIASES.get(kind, kind)
        settings: dict[str, float] = {}
        if kind == "prelu" and weights:
            settings["negative_slope"] = self._power(weights[0]) ** 0.5
        elif plain in SETTINGS and kind != "rrelu":
            name, usual = SETTINGS[plain]
            settings[name] = float(args[1] if len(args) > 1 else kwargs.get(name, usual))
        return {"settings": settings, "peak": operations.SQUASHING.get(kind), "as": plain}

    def _function(self, kind: str, args: Any, kwargs: Any) -> dict[str, Any]:
        """An elementwise function's settings; one that is set by a tensor is another, unknown one."""
        names = {"pow": ("exponent",), "clamp": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}
        settings = dict(zip(names.get(kind, ()), args[1:], strict=False)) | {
            n: v for n, v in kwargs.items() if n in names.get(kind, ())
        }
        settings = {n: v for n, v in settings.items() if v is not None}
        plain = all(isinstance(v, (int, float)) for v in settings.values())
        if not plain or (kind in names and not settings):
            return {"as": f"{kind} by a tensor"}
        return {"settings": {n: float(v) for n, v in settings.items()}}

    def _norm(
        self, kind: str, args: Any, kwargs: Any, weights: list[Tensor], given: list[Tensor]
    ) -> dict[str, Any]:
        place = {"batch_norm": (1, 2), "instance_norm": (1, 2), "rms_norm": (2, 9)}.get(kind, (2, 3))
        gain, shift = (
            args[k] if len(args) > k else kwargs.get(n)
            for k, n in zip(place, ("weight", "bias"), strict=True)
        )
        facts: dict[str, Any] = {
            "gain": self._power(gain) if gain is not None else 1.0,
            "shift": self._power(shift) if isinstance(shift, Tensor) else 0.0,
        }
        eps = next((a for a in reversed(args) if isinstance(a, float)), kwargs.get("eps"))
        facts["eps"] = 1e-5 if eps is None else float(eps)
        if kind == "batch_norm":
            facts["batch_statistics"] = bool(args[5] if len(args) > 5 else kwargs.get("training", True))
            facts["eps"] = float(args[7] if len(args) > 7 else kwargs.get("eps", 1e-5))
            variance = self.buffers.get(f"{self.turn.path}.running_var".lstrip("."))
            facts["variance"] = float(variance.mean()) + facts["eps"] if variance is not None else 1.0
        if kind in ("layer_norm", "rms_norm"):
            facts["elements"] = math.prod(args[1] if len(args) > 1 else kwargs["normalized_shape"])
        if kind == "group_norm":
            facts["groups"] = args[1] if len(args) > 1 else kwargs["num_groups"]
        return facts

    def _recurrent(self, kind: str, args: Any, reads: list[Tensor]) -> dict[str, Any]:
        module = self.turn.module
        if not isinstance(module, nn.RNNBase) or (isinstance(args[1], Tensor) and args[1].ndim == 1):
            return {"cells": (), "steps": 1}
        steps = reads[0].shape[1 if module.batch_first and reads[0].ndim == 3 else 0]
        real = {n.rpartition(".")[2]: self._known(p) for n, p in module.named_parameters(recurse=False)}
        cells = tuple(cell_of(module, real, layer) for layer in range(module.num_layers))
        return {"cells": cells, "steps": int(steps)}


def _new(tensor: Tensor, start: int) -> bool:
    """Whether an operation that began at this number made it; `x.float()` may just return x."""
    return tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() >= start


def result_shape(result: Any) -> Sequence[int]:
    """The shape of an operation's first tensor."""
    return next(calls.tensors_in(result, 2)).shape


def cell_of(module: nn.RNNBase, weights: Mapping[str, Tensor | None], layer: int) -> Cell:
    """One layer of a recurrent module, forward direction, as the theory reads it."""
    kind = "rnn" if module.mode.startswith("RNN") else module.mode.lower()
    names = recurrent.GATES[kind]
    w_in, w_rec = weights.get(f"weight_ih_l{layer}"), weights.get(f"weight_hh_l{layer}")
    hidden = module.hidden_size
    if w_in is None or w_rec is None or w_in.is_meta or module.proj_size:
        inputs = module.input_size if layer == 0 else hidden
        return recurrent.default(kind, hidden, inputs, activation=getattr(module, "nonlinearity", "tanh"))

    def parts(x: Tensor | None) -> dict[str, Any]:
        if x is None:
            return {g: np.zeros(hidden) for g in names}
        whole = x.detach().double().cpu().numpy()
        return {g: whole[k * hidden : (k + 1) * hidden] for k, g in enumerate(names)}

    b_in, b_rec = parts(weights.get(f"bias_ih_l{layer}")), parts(weights.get(f"bias_hh_l{layer}"))
    entering = {g: (w**2).sum(1) for g, w in parts(w_in).items()}
    outer = {g: b_in[g] + (0.0 if kind == "gru" and g == "n" else b_rec[g]) for g in names}
    activation = str(getattr(module, "nonlinearity", "tanh"))
    inner = b_rec["n"] if kind == "gru" else np.zeros(hidden)
    return Cell(kind, parts(w_rec), entering, outer, activation, inner)


def _geometry(kind: str, weight: Tensor, args: Any, kwargs: Any) -> Geometry:
    n = weight.ndim - 2
    order = ("stride", "padding", "output_padding", "groups", "dilation") if "transpose" in kind else (
        "stride", "padding", "dilation")  # fmt: skip
    found = {
        name: args[3 + k] if len(args) > 3 + k else kwargs.get(name, 0 if "padding" in name else 1)
        for k, name in enumerate(order)
    }

    def several(value: Any) -> tuple[int, ...]:
        return tuple(value) if isinstance(value, (tuple, list)) else (int(value),) * n

    stride, dilation = several(found["stride"]), several(found["dilation"])
    padding = found["padding"]
    if padding == "valid":
        padding = 0
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        return Geometry(stride, tuple((w // 2, w - w // 2) for w in whole), dilation)
    pads = several(padding)
    if "transpose" in kind:
        extra = several(found["output_padding"])
        return Geometry(stride, tuple((p, p - e) for p, e in zip(pads, extra, strict=True)), dilation)
    return Geometry(stride, tuple((p, p) for p in pads), dilation)
