"""Surgery on a live module: a few primitive changes, each recorded so that all can be undone exactly.

Notable:
- Identity is kept: parameters stay the same objects (the optimizer still holds them), shared modules stay
  shared, and hooks, mode, device and dtype stay.
- Behaviour is changed at a module's border by forward hooks (`Graft`), never by wrapping it, so paths and
  state-dict keys stay, and user code that accesses the module still works.
- If an optimizer is given, new parameters are added to it and removed ones dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.probes.calls import Runner
from unvanish.probes.layers import find_module, is_layer, name_parameters
from unvanish.probes.readings import is_parametrized
from unvanish.surgery.grafts import Graft, attach
from unvanish.surgery.optimizer import update_optimizer
from unvanish.surgery.receipt import Change, Receipt, SurgeryError
from unvanish.surgery.refusals import refuse

PREFIX = "unvanish_"


class Surgery:
    """The changes of one model. Every method that changes something records it in `receipt`.

    `batch` is one batch of real data, for cures that calibrate themselves; `loss` the user's loss.
    SurgeryError if the model cannot be changed here.
    """

    def __init__(
        self, model: nn.Module, *, batch: Any = None, loss: Any = None, optimizer: Any = None, seed: int = 0
    ) -> None:
        refuse(model)
        self.model, self.batch, self.loss, self.optimizer = model, batch, loss, optimizer
        self.receipt = Receipt()
        self.generator = torch.Generator().manual_seed(seed)
        self._before = list(model.parameters())

    # -- reading

    def module(self, path: str) -> nn.Module:
        """The module at a path ("" is the model); SurgeryError if there is none."""
        try:
            return find_module(self.model, path)
        except AttributeError as error:
            raise SurgeryError(
                f"the model has no module {path!r}; the prescription does not fit it"
            ) from error

    def has(self, path: str) -> bool:
        """Whether there is a module at this path."""
        try:
            find_module(self.model, path)
        except AttributeError:
            return False
        return True

    def parameter(self, name: str) -> Tensor:
        """A parameter, or a weight its module computes, by its name; SurgeryError if there is none."""
        if is_layer(self.model) and name in (named := name_parameters(self.model)):
            return named[name]
        home, _, leaf = name.rpartition(".")
        found: Tensor | None = self.module(home)._parameters.get(leaf) if self.has(home) else None
        if found is None and self.has(home) and is_parametrized(self.module(home), leaf):
            found = getattr(self.module(home), leaf).detach()
        if found is None:
            raise SurgeryError(f"the model has no parameter {name!r}; the prescription does not fit it")
        return found

    def like(self, path: str) -> tuple[torch.device, torch.dtype]:
        """Device and float dtype of a module's parameters, or of the model's if it has none."""
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
        """Record a change."""
        self.receipt.changes.append(Change(where, what, undo))

    @torch.no_grad()
    def fill(self, name: str, value: Tensor | float, what: str) -> None:
        """Overwrite a parameter or buffer in place; a computed weight through its own parameters."""
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

        def undo() -> None:
            for part, old in zip(parts, kept, strict=True):
                _restore(part, old)

        self.note(name, what, undo)
        whole = getattr(owner, leaf)
        setattr(owner, leaf, value.to(whole) if isinstance(value, Tensor) else torch.full_like(whole, value))

    @torch.no_grad()
    def overwrite(self, tensor: Tensor, value: Tensor | float, name: str, what: str) -> None:
        """Overwrite a tensor of the model in place."""
        kept = tensor.detach().clone()
        self.note(name, what, lambda: _restore(tensor, kept))
        if isinstance(value, Tensor):
            tensor.copy_(value)
        else:
            tensor.fill_(value)

    def assign(self, owner: Any, name: str, value: Any, where: str, what: str) -> None:
        """Set a plain attribute of an object."""
        absent = object()
        before = vars(owner).get(name, absent)
        setattr(owner, name, value)

        def undo() -> None:
            if before is absent:
                vars(owner).pop(name, None)
            else:
                setattr(owner, name, before)

        self.note(where, what, undo)

    def swap(self, path: str, new: nn.Module, what: str) -> None:
        """Replace a module by another one wherever it is registered; hooks and mode move to the new one."""
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
        """Register a new module or parameter on a module that is not a container; returns its full name."""
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
        self.note(full, f"new {type(value).__name__}", lambda: where.pop(place, None))
        return full

    def home(self, path: str) -> str:
        """The path at which new parameters of a module can be registered: of a container, its last leaf."""
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
        self.note(path, what, attach(self.module(path), graft))

    def replace_loss(self, new: Any, what: str) -> None:
        """Train with another loss from now on; SurgeryError if the model returns its own."""
        if self.loss is None:
            raise SurgeryError("there is no loss function to change: the model returns its own")
        if isinstance(self.loss, Runner):
            raise SurgeryError("the loss is made within the training step, where nothing can take its place")
        before = self.loss
        self.loss = self.receipt.loss = new

        def undo() -> None:
            self.loss = before
            self.receipt.loss = None

        self.note("loss", what, undo)

    def around(
        self, name: str, before: Callable[[Any], None], after: Callable[[Any], None] | None = None
    ) -> None:
        """Call `before` (and `after`) around each step of the optimizer; SurgeryError without one."""
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
        """The receipt; the optimizer, if there is one, now holds the model's present parameters."""
        if self.optimizer is not None:
            change = update_optimizer(self.optimizer, self._before, list(self.model.parameters()))
            if change is not None:
                self.receipt.changes.append(change)
        return self.receipt


@torch.no_grad()
def _restore(tensor: Tensor, kept: Tensor) -> None:
    tensor.copy_(kept)


def descendants(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules at and below a path with their full names."""
    for name, module in find_module(model, path).named_modules():
        yield (f"{path}.{name}" if path and name else path or name), module
