"""The whole state of a training, captured between two steps and restored.

Notable:
- Weights, running mean, the optimizer's tensors, the clipper's history, the loss scale, the random states of
  every process (at the epoch's start, and now), the position in the data, the rows so far.
- Sharded weights are gathered whole, so a run may continue with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from unvanish.train.errors import TrainError
from unvanish.train.loop import randomness
from unvanish.train.loop.engine import Engine
from unvanish.train.loop.record import Record
from unvanish.train.loop.run import TrainingRun

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True)
CLIPPER = ("steps", "clipped", "skipped", "norm", "mean", "variance", "seen")


def refuse_damaged(state: Mapping[str, Any]) -> None:
    """TrainError unless a state that was read has the parts of a training."""
    parts = ("arguments", "record", "model", "optimizer", "clipper")
    record = state.get("record")
    if not all(isinstance(state.get(key), dict) for key in parts) or not isinstance(record, dict):
        raise TrainError("the state to resume from is damaged: it lacks parts of a training")
    if not isinstance(record.get("epoch"), int) or not isinstance(record.get("step"), int):
        raise TrainError("the state to resume from is damaged: it does not say how far the training came")


def collect_weights(engine: Engine) -> dict[str, Tensor]:
    """The weights as they train, whole if they are sharded."""
    if engine.sharded:
        found: dict[str, Any] = get_model_state_dict(engine.model, options=WHOLE)
        return found
    return dict(engine.network.state_dict())


def capture(run: TrainingRun) -> dict[str, Any]:
    """The state; every process must call it, the first one writes it."""
    engine = run.engine
    own = {"start": run.batches.start, "now": randomness.capture()}
    chances = [own]
    if engine.processes > 1:
        from accelerate.utils import gather_object

        chances = gather_object([own])
    optimizer = (
        get_optimizer_state_dict(engine.model, engine.inner, options=WHOLE)
        if engine.sharded
        else engine.inner.state_dict()
    )
    clipper, scaler, ema = engine.guard.clipper, engine.accelerator.scaler, engine.ema
    return {
        "model": collect_weights(engine),
        "ema": None if ema is None else {k: gather(v) for k, v in ema.state().items()},
        "ema_steps": 0 if ema is None else ema.steps,
        "optimizer": optimizer,
        "clipper": {k: getattr(clipper, k) for k in CLIPPER if hasattr(clipper, k)},
        "scaler": scaler.state_dict() if scaler is not None else {},
        "chance": chances,
        "record": run.record.plain(),
        "about": run.request.about,
        "arguments": run.request.arguments.plain(),
    }


def restore(run: TrainingRun, state: Mapping[str, Any]) -> None:
    """Put a state back into a run that was built from the same arguments; `epochs` may be others.

    TrainError if it is not the state of such a run.
    """
    try:
        _restore(run, state)
    except TrainError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise TrainError(f"the state does not fit this run: {type(error).__name__}: {first}") from error


def _restore(run: TrainingRun, state: Mapping[str, Any]) -> None:
    engine = run.engine
    _restore_weights(engine, state)
    if engine.ema is not None and state["ema"] is not None:
        engine.ema.load({k: _spread(v, engine, k) for k, v in state["ema"].items()}, state["ema_steps"])
    for key in CLIPPER:
        if key in state["clipper"]:
            setattr(engine.guard.clipper, key, state["clipper"][key])
    if engine.accelerator.scaler is not None and state["scaler"]:
        engine.accelerator.scaler.load_state_dict(state["scaler"])
    run.record = replace(Record.of(state["record"]), epochs=run.request.arguments.epochs)
    chances = state["chance"]
    run.batches.resume(chances[min(engine.accelerator.process_index, len(chances) - 1)], run.record)


def _restore_weights(engine: Engine, state: Mapping[str, Any]) -> None:
    """Load the weights and the optimizer's tensors."""
    if engine.sharded:
        set_model_state_dict(engine.model, state["model"], options=SPREAD)
        set_optimizer_state_dict(engine.model, engine.inner, state["optimizer"], options=SPREAD)
        return
    engine.network.load_state_dict(state["model"])
    held = state["optimizer"]
    numbered = {int(k): v for k, v in held["state"].items()}
    engine.inner.load_state_dict({"state": numbered, "param_groups": held["param_groups"]})


def gather(tensor: Any) -> Tensor:
    """A sharded tensor gathered; any other as it is."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def _spread(value: Tensor, engine: Engine, name: str) -> Any:
    """A whole tensor as the model holds it: a shard if the model is sharded."""
    if not engine.sharded:
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = dict(engine.network.named_parameters()).get(name)
    if not hasattr(held, "device_mesh"):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements)
