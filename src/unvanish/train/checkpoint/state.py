"""The whole state of a training, captured between two steps and put back.

Notable:
- Weights as they train, the running mean, the optimizer's tensors, the clipper's history, the loss scale, the
  random states of every process (at the epoch's start, and now), the position in the data, the rows so far.
- Sharded weights are gathered whole, so a run may go on with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from unvanish.train.loop import randomness
from unvanish.train.loop.record import Record

if TYPE_CHECKING:
    from unvanish.train.trainer import Trainer

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True)
CLIPPER = ("steps", "clipped", "skipped", "norm", "mean", "variance", "seen")


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """The weights as they train, whole."""
    if trainer.sharded:
        found: dict[str, Any] = get_model_state_dict(trainer.model, options=WHOLE)
        return found
    return dict(trainer.plain.state_dict())


def capture(trainer: Trainer) -> dict[str, Any]:
    """The state; every process must call it, the first one writes it."""
    own = {"start": trainer.chance, "now": randomness.states()}
    chances = [own]
    if trainer.accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        chances = gather_object([own])
    optimizer = (
        get_optimizer_state_dict(trainer.model, trainer.inner, options=WHOLE)
        if trainer.sharded
        else trainer.inner.state_dict()
    )
    clipper, scaler, ema = trainer.guard.clipper, trainer.accelerator.scaler, trainer.ema
    return {
        "model": weights(trainer),
        "ema": None if ema is None else {k: whole(v) for k, v in ema.state().items()},
        "ema_steps": 0 if ema is None else ema.steps,
        "optimizer": optimizer,
        "clipper": {k: getattr(clipper, k) for k in CLIPPER if hasattr(clipper, k)},
        "scaler": scaler.state_dict() if scaler is not None else {},
        "chance": chances,
        "record": trainer.record.plain(),
        "about": trainer.about,
        "arguments": trainer.arguments.plain(),
    }


def restore(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Put the state back into a trainer that was built from the same arguments."""
    if trainer.sharded:
        set_model_state_dict(trainer.model, state["model"], options=SPREAD)
        set_optimizer_state_dict(trainer.model, trainer.inner, state["optimizer"], options=SPREAD)
    else:
        trainer.plain.load_state_dict(state["model"])
        held = state["optimizer"]
        numbered = {int(k): v for k, v in held["state"].items()}
        trainer.inner.load_state_dict({"state": numbered, "param_groups": held["param_groups"]})
    if trainer.ema is not None and state["ema"] is not None:
        trainer.ema.load({k: _like(v, trainer, k) for k, v in state["ema"].items()}, state["ema_steps"])
    for key, value in state["clipper"].items():
        setattr(trainer.guard.clipper, key, value)
    if trainer.accelerator.scaler is not None and state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    chances = state["chance"]
    trainer.resume_at(
        Record.of(state["record"]), chances[min(trainer.accelerator.process_index, len(chances) - 1)]
    )


def whole(tensor: Any) -> Tensor:
    """A sharded tensor gathered; any other as it is."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def _like(value: Tensor, trainer: Trainer, name: str) -> Any:
    """A whole tensor as the model holds it: a shard where that is sharded."""
    if not trainer.sharded:
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = dict(trainer.plain.named_parameters()).get(name)
    if not hasattr(held, "device_mesh"):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements)
