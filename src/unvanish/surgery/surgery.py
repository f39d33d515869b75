"""Surgery on a live module: a few primitive changes, each written down so that all can be taken back exactly.

Notable:
- What is changed keeps what was there: parameters stay the same objects (an optimizer goes on holding them),
  shared modules stay shared, hooks, mode, device and dtype stay.
- Behaviour is changed at a module's border by forward hooks (`Graft`), never by wrapping it, so paths and
  state-dict keys stay, and user code that reaches into the module goes on working.
- Where an optimizer is given, it takes up new parameters and lets go of removed ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unvanish.probes.readings import is_parametrized

PREFIX = "unvanish_"


class SurgeryError(ValueError):
    """A change that cannot be made; the text names the thing, the place and the next step."""


@dataclass(frozen=True)
class Change:
    """One change: where, what in words, and how to take it back."""

    where: str
    what: str
    undo: Callable[[], None] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.where or '(model)'}: {self.what}"


@dataclass
class Receipt:
    """Everything that was changed, in order; `undo` takes it all back, bit for bit.

    `loss` is the loss to train with from now on, None where the user's own stays; `handles` holds what lives
    around an optimizer (a clipper with its history, say), by the cure's name.
    """

    changes: list[Change] = field(default_factory=list)
    loss: Any = None
    handles: dict[str, Any] = field(default_factory=dict)

    def undo(self) -> None:
        """Take every change back, the last one first; a second call does nothing."""
        while self.changes:
            self.changes.pop().undo()

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(str(change) for change in self.changes) or "nothing was changed"


class Graft:
    """What a module does beside its own forward: see its arguments first, its output last.

    A plain object, copied and pickled with the module; it may refer to modules and parameters, which are
    registered with `Surgery.register`.
    """

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The arguments the module shall see."""
        return args, kwargs

    def after(self, args: tuple[Any, ...], output: Any) -> Any:
        """The output others shall see."""
        return output

    def leave(self) -> None:
        """Called in any case, also after an exception."""


class _Before:
    def __init__(self, graft: Graft) -> None:
        self.graft = graft

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        return self.graft.before(args, kwargs)


class _After:
    def __init__(self, graft: Graft) -> None:
        self.graft = graft

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        try:
            return output if output is None else self.graft.after(_given(args, kwargs), output)
        finally:
            self.graft.leave()


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return args or tuple(kwargs.values())


class Surgery:
    """A module under the knife. Every method that changes something writes it into `receipt`.

    `batch` is one batch of real data, for cures that calibrate themselves; `loss` the user's loss.
    SurgeryError for a module that must not be changed here.
    """

    def __init__(
        self, model: nn.Module, *, batch: Any = None, loss: Any = None, optimizer: Any = None, seed: int = 0
    ) -> None:
        refuse(model)
        self.model, self.batch, self.loss, self.optimizer = model, batch, loss, optimizer
        self.receipt = Receipt()
        self.generator = torch.Generator().manual_seed(seed)
        self._known = {id(p): p for p in model.parameters()}

    # -- looking

    def module(self, path: str) -> nn.Module:
        """The module at a path ("" is the model); SurgeryError where there is none."""
        try:
            return self.model.get_submodule(path)
        except AttributeError as error:
            raise SurgeryError(
                f"the model has no module {path!r}; it does not fit this prescription"
            ) from error

    def has(self, path: str) -> bool:
        """Whether there is a module at this path."""
        try:
            self.model.get_submodule(path)
        except AttributeError:
            return False
        return True

    def parameter(self, name: str) -> Tensor:
        """A parameter, or a weight its module computes, by its name; SurgeryError where there is none."""
        home, _, leaf = name.rpartition(".")
        found: Tensor | None = self.module(home)._parameters.get(leaf) if self.has(home) else None
        if found is None and self.has(home) and is_parametrized(self.module(home), leaf):
            found = getattr(self.module(home), leaf).detach()
        if found is None:
            raise SurgeryError(f"the model has no parameter {name!r}; it does not fit this prescription")
        return found

    def like(self, path: str) -> tuple[torch.device, torch.dtype]:
        """Device and float dtype of a module's parameters, or of the model's where it has none."""
        for module in (self.module(path), self.model):
            for p in module.parameters():
                if p.is_floating_point():
                    return p.device, p.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of a tensor's shape, dtype and device, from the surgery's own generator."""
        drawn = torch.randn(like.shape, generator=self.generator, dtype=torch.float32, device="cpu")
        return drawn.to(like.device, like.dtype)

    # -- changing

    def note(self, where: str, what: str, undo: Callable[[], None]) -> None:
        """Write a change down."""
        self.receipt.changes.append(Change(where, what, undo))

    @torch.no_grad()
    def fill(self, name: str, value: Tensor | float, what: str) -> None:
        """Overwrite a parameter or buffer in place; a weight its module computes by what it is made of."""
        home, _, leaf = name.rpartition(".")
        if self.has(home) and is_parametrized(owner := self.module(home), leaf):
            self._compute(owner, leaf, value, name, what)
            return
        tensor = self.module(home)._buffers.get(leaf) if self.has(home) else None
        self.overwrite(self.parameter(name) if tensor is None else tensor, value, name, what)

    def _compute(self, owner: nn.Module, leaf: str, value: Tensor | float, name: str, what: str) -> None:
        made: Any = owner.parametrizations
        parts = [*made[leaf].parameters(), *made[leaf].buffers()]
        kept = [part.detach().clone() for part in parts]
        whole = getattr(owner, leaf)
        setattr(owner, leaf, value.to(whole) if isinstance(value, Tensor) else torch.full_like(whole, value))

        def undo() -> None:
            for part, old in zip(parts, kept, strict=True):
                _restore(part, old)

        self.note(name, what, undo)

    @torch.no_grad()
    def overwrite(self, tensor: Tensor, value: Tensor | float, name: str, what: str) -> None:
        """Overwrite a tensor of the model in place."""
        kept = tensor.detach().clone()
        if isinstance(value, Tensor):
            tensor.copy_(value)
        else:
            tensor.fill_(value)
        self.note(name, what, lambda: _restore(tensor, kept))

    def assign(self, owner: Any, name: str, value: Any, where: str, what: str) -> None:
        """Set a plain attribute of an object."""
        absent = object()
        before = vars(owner).get(name, absent)
        setattr(owner, name, value)

        def undo() -> None:
            if before is absent:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

        self.note(where, what, undo)

    def swap(self, path: str, new: nn.Module, what: str) -> None:
        """Put a module in the place of another one, wherever that is registered; hooks and mode move over."""
        old = self.module(path)
        if old is self.model:
            raise SurgeryError(
                f"the model itself is a {type(old).__name__} and cannot be replaced from inside"
            )
        new.train(old.training)
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            vars(new)[kind].update(vars(old)[kind])
        for kind in (
            "_forward_hooks_with_kwargs",
            "_forward_hooks_always_called",
            "_forward_pre_hooks_with_kwargs",
        ):
            vars(new)[kind].update(vars(old)[kind])
        places = [(m, n) for m in list(self.model.modules()) for n, c in m._modules.items() if c is old]
        for owner, name in places:
            owner._modules[name] = new

        def undo() -> None:
            for owner, name in places:
                owner._modules[name] = old

        self.note(path, what, undo)

    def register(self, path: str, name: str, value: nn.Module | nn.Parameter) -> str:
        """Register a new module or parameter on a module that is no container; returns its full name."""
        home = self.home(path)
        owner = self.module(home)
        place = PREFIX + name
        while hasattr(owner, place):
            place += "_"
        device, dtype = self.like(path)
        value = value.to(device, dtype) if isinstance(value, nn.Module) else value
        if isinstance(value, nn.Module):
            value.train(owner.training)
            owner.add_module(place, value)
            where: dict[str, Any] = owner._modules
        else:
            owner.register_parameter(place, value)
            where = owner._parameters
        full = f"{home}.{place}" if home else place
        self.note(full, f"new {type(value).__name__}", lambda: where.pop(place))
        return full

    def home(self, path: str) -> str:
        """Where new parameters of a module may live: a container runs its children, so its last leaf takes
        them.
        """
        module = self.module(path)
        while isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
            last = next(reversed(module._modules), None)
            if last is None:
                raise SurgeryError(f"{path or '(model)'} is empty")
            path = f"{path}.{last}" if path else last
            module = module.get_submodule(last)
        return path

    def graft(self, path: str, graft: Graft, what: str) -> None:
        """Let a graft see the arguments and the output of a module's calls."""
        module = self.module(path)
        handles = [
            module.register_forward_pre_hook(_Before(graft), with_kwargs=True),
            module.register_forward_hook(_After(graft), with_kwargs=True, always_call=True),
        ]

        def undo() -> None:
            for handle in handles:
                handle.remove()

        self.note(path, what, undo)

    def replace_loss(self, new: Any, what: str) -> None:
        """Train with another loss from now on; SurgeryError where the model brings its own."""
        if self.loss is None:
            raise SurgeryError("there is no loss function to change: the model returns its own")
        before = self.loss
        self.loss = self.receipt.loss = new

        def undo() -> None:
            self.loss = before
            self.receipt.loss = None

        self.note("loss", what, undo)

    def around(
        self, name: str, before: Callable[[Any], None], after: Callable[[Any], None] | None = None
    ) -> None:
        """Call `before` (and `after`) with the optimizer around each of its steps; needs an optimizer."""
        if self.optimizer is None:
            raise SurgeryError(
                f"{name} works on the optimizer; pass it: apply(model, prescription, optimizer=...)"
            )
        handles = [self.optimizer.register_step_pre_hook(lambda o, args, kwargs: before(o))]
        if after is not None:
            handles.append(self.optimizer.register_step_post_hook(lambda o, args, kwargs: after(o)))
        self.receipt.handles[name] = before

        def undo() -> None:
            self.receipt.handles.pop(name, None)
            for handle in handles:
                handle.remove()

        self.note("optimizer", name, undo)

    def finish(self) -> Receipt:
        """The receipt; the optimizer, where there is one, holds the model's parameters as they are now."""
        if self.optimizer is not None:
            self._follow(self.optimizer)
        return self.receipt

    def _follow(self, optimizer: Any) -> None:
        now = {id(p): p for p in self.model.parameters()}
        gone = [p for i, p in self._known.items() if i not in now]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        new = [p for i, p in now.items() if i not in self._known and i not in held and p.requires_grad]
        if not gone and not new:
            return
        kept = [list(group["params"]) for group in optimizer.param_groups]
        states = {p: optimizer.state[p] for p in gone if p in optimizer.state}
        leaving = {id(p) for p in gone}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in leaving]
        for p in states:
            del optimizer.state[p]
        largest = max(optimizer.param_groups, key=lambda group: len(group["params"]))
        largest["params"] = [*largest["params"], *new]

        def undo() -> None:
            for group, before in zip(optimizer.param_groups, kept, strict=True):
                group["params"] = before
            for p in new:
                optimizer.state.pop(p, None)
            optimizer.state.update(states)

        self.note("optimizer", f"{len(new)} parameters taken up, {len(gone)} let go", undo)


@torch.no_grad()
def _restore(tensor: Tensor, kept: Tensor) -> None:
    tensor.copy_(kept)


def refuse(model: Any) -> None:
    """SurgeryError for what must not be operated on, with the reason and the way out."""
    if not isinstance(model, nn.Module):
        raise SurgeryError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module; pass the module itself"
        )
    name = type(model).__name__
    for module in model.modules():
        kind = type(module).__name__
        where = "the model is" if module is model else "the model holds"
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            raise SurgeryError(
                f"{where} wrapped in {kind}, which keeps its own list of parameters; cure the module inside "
                f"(`.module`) and wrap it afterwards"
            )
        if kind == "OptimizedModule":
            raise SurgeryError(
                f"{where} compiled, and compiled code would not see the change; cure the module before "
                f"torch.compile"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise SurgeryError(
                f"{where} a ScriptModule, whose code is fixed; cure the module it was made from"
            )
        if "FullyShardedDataParallel" in kind or any(
            "FSDPModule" in c.__name__ for c in type(module).__mro__
        ):
            raise SurgeryError(f"{where} sharded by FSDP; cure the module before it is sharded")
    for n, p in model.named_parameters():
        if is_lazy(p):
            raise SurgeryError(f"the parameter {n} has no shape yet; run {name} once on a batch first")
        if p.is_meta:
            raise SurgeryError(
                f"the parameter {n} is on the meta device and holds no numbers; materialise it first"
            )


def settings(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of a cure's `apply`, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def descendants(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules at and below a path with their full names."""
    for name, module in model.get_submodule(path).named_modules():
        yield (f"{path}.{name}" if path and name else path or name), module
