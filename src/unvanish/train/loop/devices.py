"""Where a training runs: one device or several processes, its precision, and loaders that fit it.

Notable:
- Accelerate does it: `torchrun` or `accelerate launch` start the processes, DDP or FSDP2 joins them.
- `batch` is the whole batch: each process takes its part, so two processes make the steps of one.
- On a single process the loaders stay as they are, and nothing stands between them and the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, send_to_device

from unvanish.train.arguments import Arguments
from unvanish.train.errors import TrainError


def accelerator(arguments: Arguments) -> Accelerator:
    """The Accelerator for the arguments; TrainError for a device that is not there."""
    AcceleratorState._reset_state(
        reset_partial_state=not _launched()
    )  # of a training before, in this process
    kind, index = device_of(arguments.device)
    if kind == "cuda" and not _launched():
        torch.cuda.set_device(index)
    plugin = None
    if arguments.sharding == "fsdp":
        if not _launched():
            raise TrainError(
                "sharding=fsdp needs several processes; start them with torchrun or accelerate launch"
            )
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    made = Accelerator(
        cpu=kind == "cpu",
        mixed_precision=precision(arguments.amp, kind),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        fsdp_plugin=plugin,
        rng_types=[],
    )
    if arguments.batch % made.num_processes:
        raise TrainError(
            f"batch={arguments.batch} cannot be shared by {made.num_processes} processes; give a multiple"
        )
    return made


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def device_of(device: str | int | list[int] | None) -> tuple[str, int]:
    """The kind of device and its number; TrainError says which there are."""
    if isinstance(device, list):
        if len(device) > 1:
            count = len(device)
            raise TrainError(
                f"device={device}: several devices need a process each;"
                f" torchrun --nproc-per-node {count} -m unvanish train ..."
            )
        device = device[0] if device else None
    text = str(device if device is not None else "").lower()
    if text in ("", "none", "auto"):
        gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return (gpu.type if gpu is not None else "cpu"), 0
    if "," in text:
        return device_of([int(part) for part in text.strip("[]").split(",") if part.strip().isdigit()])
    kind, _, number = f"cuda:{text}".partition(":") if text.isdigit() else text.partition(":")
    index = int(number) if number.isdigit() else 0
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if index >= there.get(kind, 0):
        found = ", ".join(f"{k} ({n})" for k, n in there.items() if n)
        raise TrainError(f"device={device!r} is not here; there are: {found}")
    return kind, index


def precision(amp: bool | str, kind: str) -> str:
    """What Accelerate calls the precision: no, bf16 or fp16."""
    if amp in (False, "no") or (amp == "auto" and kind != "cuda"):
        return "no"
    if isinstance(amp, str) and amp != "auto":
        return amp
    return "bf16" if kind != "cuda" or torch.cuda.is_bf16_supported() else "fp16"


def loader(made: Accelerator, own: Any) -> Any:
    """The loader as this process reads it."""
    return own if own is None or made.num_processes == 1 else made.prepare_data_loader(own)


def agreed(made: Accelerator, choose: Callable[[], Path]) -> Path:
    """What the first process chooses, on all of them."""
    found = [str(choose()) if made.is_main_process else ""]
    if made.num_processes > 1:
        broadcast_object_list(found)
    return Path(found[0])


def moved(made: Accelerator, batch: Any) -> Any:
    """The batch on this process's device."""
    return batch if made.device.type == "cpu" else send_to_device(batch, made.device, non_blocking=True)


@contextmanager
def determined(wanted: bool, made: Accelerator) -> Iterator[None]:
    """Deterministic algorithms on a GPU, for as long as this lasts."""
    if not wanted or made.device.type != "cuda":
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
