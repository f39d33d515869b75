"""DeepSpeed: `DeepSpeedWatch(engine)`, after `deepspeed.initialize`.

Notable:
- Without ZeRO the gradients are where torch has them, and the optimizer within is watched.
- ZeRO 1 to 3 take them away as soon as they are made. They are asked for by `safe_get_full_grad` before each
  step, which takes the memory of one whole gradient.
- Of several processes that is a collective, and a watch makes none unasked: with `gather=True` every process
  must hold such a watch.
- ZeRO leaves a step that is not finite out by itself (`engine.skipped_steps`), so a guard is refused.
- Findings go to DeepSpeed's logger.
- The shards of ZeRO 3 are put together for the time of a reading (`GatheredParameters`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from deepspeed import DeepSpeedEngine, zero
from deepspeed.utils import logger, safe_get_full_grad

from unvanish.clinic.watch.optimizers import holds_some, unwrap_optimizer
from unvanish.integrations.attachment import PREFIX, Attachment
from unvanish.integrations.logs import write_by
from unvanish.integrations.optimizer_face import OptimizerFace, exchange_gradients
from unvanish.probes.errors import CheckError

GUARDS = ("guard", "guard-agc")


class DeepSpeedWatch:
    """Watches what an engine trains, until `close`; a context manager.

    `gather`: whether gradients that are spread over several processes may be put together at every step.
    `options`: keyword arguments of `unvanish.watch`. CheckError for what is no engine, for a guard under
    ZeRO, and for several processes under ZeRO without `gather`.
    """

    def __init__(self, engine: Any, *, gather: bool = False, **options: Any) -> None:
        if not isinstance(engine, DeepSpeedEngine):
            raise CheckError(
                f"engine is a {type(engine).__name__}, not what deepspeed.initialize returns first"
            )
        self.attachment = Attachment(**options)
        self._engine = engine
        self._whole: WholeGradients | None = None
        stage, optimizer = engine.zero_optimization_stage(), unwrap_optimizer(engine.optimizer)
        if not stage and holds_some(optimizer, engine.module):
            self.attachment.open(engine.module, optimizer, tell=write_by(logger))
            return
        if not set(GUARDS).isdisjoint(way for way in self.attachment.ways if isinstance(way, str)):
            raise CheckError(
                f"ZeRO {stage} keeps its gradients to itself, and leaves out steps that are not finite: take "
                "the guard away"
            )
        if engine.world_size > 1 and not gather:
            raise CheckError(
                f"ZeRO {stage} spreads the gradients over the processes; gather=True puts them together at "
                "every step, in every process"
            )
        self._whole = WholeGradients(engine)
        with self._whole.gather():
            self.attachment.open(engine.module, self._whole.face, tell=write_by(logger))

    @property
    def watch(self) -> Any:
        """The watch of this training; None if it was refused."""
        return self.attachment.watch

    def metrics(self) -> dict[str, float]:
        """The numbers of the step just made, with the steps that DeepSpeed skipped."""
        return {**self.attachment.metrics(), f"{PREFIX}skipped_steps": float(self._engine.skipped_steps)}

    def close(self) -> None:
        """Detach and write what is left; harmless when repeated."""
        self.attachment.close()
        if self._whole is not None:
            self._whole.remove()

    def __enter__(self) -> DeepSpeedWatch:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class WholeGradients:
    """Stands in front of an engine's `step`: the whole gradient lies at the parameters before it."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._parameters = [p for p in engine.module.parameters() if p.requires_grad]
        self.face = OptimizerFace(self._parameters, float(engine.get_lr()[0]))
        self._step: Callable[..., Any] = engine.step
        vars(engine)["step"] = self.step

    def gather(self) -> AbstractContextManager[Any]:
        """Within it parameters have their whole values."""
        if self._engine.zero_optimization_stage() < 3:
            return nullcontext()
        gathered: AbstractContextManager[Any] = zero.GatheredParameters(self._parameters)
        return gathered

    def remove(self) -> None:
        """Take it off; if something else stands there now, it stays."""
        if vars(self._engine).get("step") == self.step:
            del vars(self._engine)["step"]

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """The engine's `step`; one that only accumulates is none."""
        if not self._engine.is_gradient_accumulation_boundary():
            return self._step(*args, **kwargs)
        with self.gather():
            before = exchange_gradients(self._parameters, self._read())
            try:
                self.face.begin(float(self._engine.get_lr()[0]))
            finally:
                exchange_gradients(self._parameters, before)
        result = self._step(*args, **kwargs)
        with self.gather():
            self.face.end()
        return result

    def _read(self) -> list[Any]:
        """The whole gradients, without a loss scale."""
        scale = float(getattr(self._engine.optimizer, "loss_scale", 1.0))
        found = [safe_get_full_grad(p) for p in self._parameters]
        return [
            None if whole is None else (whole / scale if scale != 1.0 else whole).to(p.dtype)
            for p, whole in zip(self._parameters, found, strict=True)
        ]
