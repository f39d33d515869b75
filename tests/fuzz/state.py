"""An oracle for "all is as it was": a deep, exact picture of a model, a batch and the process.

Notable:
- It shares no code with what it judges. A picture is a flat table from a path to a token; objects are
  held, so that no id is given out twice.
- Identity counts: a container must hold the same objects, a tensor the same storage, version and flags.
- Looking changes nothing: bytes are read from copies, and no storage is handed to NumPy.
"""

from __future__ import annotations

import array
import collections
import gc
import hashlib
import io
import random
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.modules.module as module_hooks
import torch.utils.checkpoint as checkpointing
from torch import Tensor, nn

VALUES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.Size,
    np.dtype,
)
OPEN = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
FOREIGN = ("torch", "numpy", "builtins", "collections", "threading", "logging")
GLOBAL_HOOKS = [n for n in vars(module_hooks) if n.startswith("_global_")]
Picture = dict[str, Any]


@dataclass
class State:
    """A picture: tokens by path, and the objects that were seen."""

    tokens: Picture = field(default_factory=dict)
    seen: dict[int, tuple[str, Any]] = field(default_factory=dict)  # by id: the first path, and the object
    open: list[str] = field(default_factory=list)  # paths of what nothing can put back

    def look(self, path: str, value: Any) -> None:
        """Note a value and all that it reaches."""
        waiting = [(path, value)]
        while waiting:
            where, found = waiting.pop()
            token, below = self._describe(where, found)
            self.tokens[where] = token
            waiting += below

    def _describe(self, path: str, value: Any) -> tuple[Any, list[tuple[str, Any]]]:
        if isinstance(value, VALUES):
            return (type(value).__name__, value.hex() if isinstance(value, float) else repr(value)), []
        if id(value) in self.seen:
            return ("again", self.seen[id(value)][0]), []
        self.seen[id(value)] = (path, value)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        more, below = _contents(value)
        if isinstance(value, OPEN) or (isinstance(value, Iterator) and not isinstance(value, io.IOBase)):
            self.open.append(path)
        below += _attributes(value)
        return (kind, id(type(value)), id(value), more), [(f"{path}{name}", item) for name, item in below]


def _contents(value: Any) -> tuple[Any, list[tuple[str, Any]]]:
    """What a value holds in itself: numbers as a token, objects as children."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return value.shape, [(f"[{i}]", v) for i, v in enumerate(value.ravel().tolist())]
        return (
            value.shape,
            str(value.dtype),
            value.strides,
            _hash(value.tobytes()),
            value.flags.writeable,
        ), []
    if isinstance(value, torch.Generator):
        return (value.initial_seed(), _hash(bytes(value.get_state().tolist()))), []
    if isinstance(value, random.Random):
        return repr(value.getstate()), []
    if isinstance(value, (np.random.Generator, np.random.RandomState, np.random.BitGenerator)):
        bits = value.bit_generator if isinstance(value, np.random.Generator) else value
        return repr(
            bits.get_state(legacy=False) if isinstance(bits, np.random.RandomState) else bits.state
        ), []
    if isinstance(value, Mapping) and isinstance(value, (dict, types.MappingProxyType)):
        factory = value.default_factory if isinstance(value, collections.defaultdict) else None
        keys = [(f".key{i}", k) for i, k in enumerate(value)]
        return (len(value), id(factory)), keys + [
            (f"[{k!r:.40}|{i}]", v) for i, (k, v) in enumerate(value.items())
        ]
    if isinstance(value, (list, tuple, collections.deque)):
        limit = value.maxlen if isinstance(value, collections.deque) else None
        return (len(value), limit), [(f"[{i}]", v) for i, v in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(f"{id(v) if not isinstance(v, VALUES) else repr(v)}" for v in value), []
    if isinstance(value, (bytearray, array.array)):
        return bytes(value), []
    if isinstance(value, (io.BytesIO, io.StringIO)):
        return (value.tell(), value.getvalue()), []
    if isinstance(value, io.IOBase):
        return (value.closed, value.closed or (value.seekable() and value.tell())), []
    if isinstance(value, types.CellType):
        try:
            return "full", [(".cell", value.cell_contents)]
        except ValueError:
            return "empty", []
    if hasattr(value, "__length_hint__") and isinstance(value, Iterator):
        return value.__length_hint__(), []
    return None, []


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """The attributes of an object: its dictionary, its slots, its closure, its class's own."""
    if isinstance(value, (type, types.ModuleType)):
        return []
    found: list[tuple[str, Any]] = []
    if isinstance(value, types.MethodType):
        return [(".self", value.__self__), (".func", value.__func__)]
    if isinstance(value, types.FunctionType):
        if value.__module__ and value.__module__.split(".")[0] in FOREIGN:
            return []
        found += [(f".closure{i}", c) for i, c in enumerate(value.__closure__ or ())]
        found += [(".defaults", value.__defaults__), (".kwdefaults", value.__kwdefaults__)]
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        found += [(f".{k}", v) for k, v in own.items()]
        found.append((".names", " ".join(map(str, own))))
    for owner in type(value).__mro__:
        slots = owner.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found.append((f".{name}", getattr(value, name)))
        if (
            owner.__module__.split(".")[0] not in FOREIGN
            and owner.__module__.split(".")[0] not in sys.stdlib_module_names
        ):
            found += [(f"<{owner.__qualname__}>.{k}", v) for k, v in vars(owner).items() if _is_data(k, v)]
    if hasattr(value, "func") and hasattr(value, "keywords") and hasattr(value, "args"):  # functools.partial
        found += [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    return found


def _is_data(name: str, value: Any) -> bool:
    machinery = (staticmethod, classmethod, property, types.GetSetDescriptorType, types.MemberDescriptorType)
    return not name.startswith("__") and "_abc_" not in name and not isinstance(value, machinery)


def _tensor(x: Tensor) -> tuple[Any, list[tuple[str, Any]]]:
    flags = (x.dtype, x.device, x.layout, x.requires_grad, x.is_leaf, id(x.grad_fn), _version(x))
    below: list[tuple[str, Any]] = [(".hooks", x._backward_hooks)]
    with warnings.catch_warnings(), torch._C.DisableTorchFunctionSubclass():
        warnings.simplefilter("ignore")
        if x.is_leaf:
            below.append((".grad", x.grad))
        if nn.parameter.is_lazy(x):
            return ("lazy", *flags), below
        place: Any = tuple(x.shape) if not x.is_nested else None
        if x.layout is not torch.strided:
            parts = [x._indices(), x._values()] if x.layout is torch.sparse_coo else []
            return (*flags, place, [_bytes(p) for p in parts]), below
        if x.is_meta or x.is_nested or type(x) not in (Tensor, nn.Parameter, nn.Buffer):
            return (*flags, place, repr(x) if x.is_nested else ""), below
        storage = x.untyped_storage()
        place = (
            place,
            x.stride(),
            x.storage_offset(),
            storage._cdata,
            storage.nbytes(),
            storage.resizable(),
        )
        return (*flags, place, _bytes(x)), below


def _version(x: Tensor) -> int:
    return -1 if x.is_inference() else x._version


def _bytes(x: Tensor) -> str:
    """The hash of all of a tensor's storage."""
    if x.layout is not torch.strided or not x.untyped_storage().nbytes():
        return ""
    whole = torch.empty(0, dtype=torch.uint8, device=x.device).set_(x.untyped_storage())
    return _hash(whole.detach().cpu().clone().numpy().tobytes())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def read_process() -> Picture:
    """What the process and this thread are set to."""
    found: Picture = {
        "python's random state": random.getstate(),
        "numpy's random state": repr(np.random.get_state(legacy=False)),
        "torch's random state": _hash(bytes(torch.get_rng_state().tolist())),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")],
        "autocast cache": torch.is_autocast_cache_enabled(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "threads": torch.get_num_threads(),
        "cudnn": (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.allow_tf32,
        ),
        "matmul": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32),
        "mkldnn": torch.backends.mkldnn.enabled,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "attention": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        ),
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "checkpointing": (
            id(checkpointing._checkpoint_without_reentrant_generator),
            vars(checkpointing.CheckpointFunction).get("apply"),
        ),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "warnings": [(f[0], str(f[1]), f[2], str(f[3]), f[4]) for f in warnings.filters],
        "showwarning": id(warnings.showwarning),
        "numpy's errors": np.geterr(),
        "recursion limit": sys.getrecursionlimit(),
        "threads alive": sorted(t.name for t in threading.enumerate()),
        "tracing": id(sys.getprofile()),
    }
    for name in GLOBAL_HOOKS:
        value = getattr(module_hooks, name)
        found[f"torch's {name}"] = list(value.items()) if isinstance(value, dict) else value
    if threading.current_thread() is threading.main_thread():
        found["signals"] = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # heavy; "default" as long as nobody loads it
    found["stance"] = "default" if compiler is None else compiler._stance.stance
    return found


def picture(**roots: Any) -> State:
    """A picture of these roots and of the process."""
    state = State()
    for name, value in read_process().items():
        state.tokens[f"process: {name}"] = value
    for name, root in roots.items():
        state.look(name, root)
    return state


def differences(before: State, after: State, versions: bool = True) -> list[str]:
    """What differs between two pictures, one line each; `versions`: of tensors too."""
    found: list[str] = []
    for path in dict.fromkeys([*before.tokens, *after.tokens]):
        old, new = (s.tokens.get(path, "(nothing)") for s in (before, after))
        if not versions:
            old, new = _without_version(old), _without_version(new)
        if not _equal(old, new):
            found.append(f"{path}: {old!s:.150} became {new!s:.150}")
    return found


def _without_version(token: Any) -> Any:
    if isinstance(token, tuple) and len(token) == 4 and isinstance(token[3], tuple) and len(token[3]) > 6:
        return (*token[:3], (*token[3][:6], *token[3][7:]))
    return token


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (ValueError, RuntimeError):
        return a is b
