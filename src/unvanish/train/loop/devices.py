"""Where a training runs: one device or several processes, its precision, and loaders that fit it.

Notable:
- Accelerate does it: `torchrun` or `accelerate launch` starts the processes, DDP or FSDP2 joins them.
- `batch` is the whole batch: each process takes its part, so two processes make the same steps as one.
- With a single process the loaders stay as they are.
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


def build_accelerator(arguments: Arguments) -> Accelerator:
    """The Accelerator for the arguments; TrainError if the device does not exist."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    AcceleratorState._reset_state(reset_partial_state=not launched)  # left by an earlier training
    kind, index = find_device(arguments.device)
    if kind == "cuda" and not launched:
        torch.cuda.set_device(index)
    plugin = None
    if arguments.sharding == "fsdp":
        if not launched:
            raise TrainError(
                "sharding=fsdp needs several processes; start them with torchrun or accelerate launch"
            )
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator = Accelerator(
        cpu=kind == "cpu",
        mixed_precision=choose_precision(arguments.amp, kind),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        fsdp_plugin=plugin,
        rng_types=[],
    )
    if arguments.batch % accelerator.num_processes:
        count = accelerator.num_processes
        raise TrainError(f"batch={arguments.batch} cannot be shared by {count} processes; give a multiple")
    return accelerator


def find_device(device: str | int | list[int] | None) -> tuple[str, int]:
    """The kind of device and its number; TrainError names the devices that exist."""
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
        parts = [part.strip() for part in text.strip("[]").split(",")]
        if all(_is_number(part) for part in parts):
            return find_device([int(part) for part in parts])
    kind, colon, number = f"cuda:{text}".partition(":") if _is_number(text) else text.partition(":")
    index = int(number) if _is_number(number) else 1_000_000 if colon else 0  # cuda:x is no device
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if index >= there.get(kind, 0):
        found = ", ".join(f"{k} ({n})" for k, n in there.items() if n)
        raise TrainError(f"device={device!r} does not exist here; there are: {found}")
    return kind, index


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def choose_precision(amp: bool | str, kind: str) -> str:
    """The precision in the words of Accelerate: no, bf16 or fp16."""
    if amp in (False, "no") or (amp == "auto" and kind != "cuda"):
        return "no"
    if isinstance(amp, str) and amp != "auto":
        return amp
    return "bf16" if kind != "cuda" or torch.cuda.is_bf16_supported() else "fp16"


def prepare_loader(accelerator: Accelerator, own: Any) -> Any:
    """The loader as this process reads it; None stays None."""
    return own if own is None or accelerator.num_processes == 1 else accelerator.prepare_data_loader(own)


def share_choice(accelerator: Accelerator, choose: Callable[[], Path]) -> Path:
    """The path that the first process chooses, on every process."""
    found = [str(choose()) if accelerator.is_main_process else ""]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    return Path(found[0])


def to_device(accelerator: Accelerator, batch: Any) -> Any:
    """The batch on this process's device."""
    return (
        batch
        if accelerator.device.type == "cpu"
        else send_to_device(batch, accelerator.device, non_blocking=True)
    )


@contextmanager
def deterministic(wanted: bool, accelerator: Accelerator) -> Iterator[None]:
    """Within the block a GPU runs deterministic algorithms, if wanted."""
    if not wanted or accelerator.device.type != "cuda":
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
