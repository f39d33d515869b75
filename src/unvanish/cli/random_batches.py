"""Random batches for Transformers models: the input under its keyword, in the shape of the configuration.

Notable:
- Labels are added if the head computes a loss from them: ids for language, classes for classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unvanish.cli.errors import CallError
from unvanish.cli.subject import Batch

TOKENS, PIXELS, SAMPLES = 32, 224, 16_000  # by default


def make_batch(model: Any, size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
    """Random input under the model's keyword, with labels if the model computes a loss from them."""
    import torch

    name, config = model.main_input_name, model.config
    text = f"{name} is random, seed {seed}"
    generator = torch.Generator().manual_seed(seed)
    vocabulary = _vocabulary(model)
    if name == "input_ids":
        ids = torch.randint(vocabulary, (size, *(shape or (TOKENS,))), generator=generator)
        inputs, text = {name: ids}, f"{text}: token ids below {vocabulary}, shape {tuple(ids.shape)}"
    else:
        whole = (size, *(shape or _own_shape(name, config)))
        inputs, text = {name: draw_normal(whole, seed)}, f"{text}: standard normal, shape {whole}"
    labels = _make_labels(model, inputs[name], vocabulary, generator)
    if labels is None:
        return Batch(inputs, (text,))
    kind = "the labels are the same ids" if labels is inputs[name] else "the labels are random"
    return Batch({**inputs, "labels": labels}, (text, kind))


def _vocabulary(model: Any) -> int:
    """The number of tokens, 0 if the model has no embedding."""
    import torch

    tables = [m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return int(getattr(model.config.get_text_config(), "vocab_size", None) or max(tables, default=0))


def _own_shape(name: str, config: Any) -> tuple[int, ...]:
    """The shape of the input in a configuration, without the batch."""
    if name == "pixel_values":
        part = getattr(config, "vision_config", config)
        side = getattr(part, "image_size", None) or PIXELS
        sides = tuple(side.values()) if isinstance(side, Mapping) else side
        return (getattr(part, "num_channels", 3), *((sides, sides) if isinstance(sides, int) else sides))
    if name == "input_features" and hasattr(config, "max_source_positions"):
        return (config.num_mel_bins, 2 * config.max_source_positions)
    if name == "input_values":
        return (SAMPLES,)
    raise CallError(f"MODEL hf: the input {name!r} has no random batch; give one with --data")


def _make_labels(model: Any, inputs: Any, vocabulary: int, generator: Any) -> Any:
    """Labels for the model's loss: the ids themselves, or random classes; None if the head has no loss."""
    import torch

    head, classes = type(model).__name__, model.config.num_labels
    shape = tuple(inputs.shape) if "TokenClassification" in head else (len(inputs),)
    if "Classification" not in head:
        if not head.endswith(("LM", "LMHeadModel", "ConditionalGeneration")):
            return None
        if not inputs.is_floating_point():
            return inputs
        shape, classes = (len(inputs), TOKENS), vocabulary
    return torch.randint(classes, shape, generator=generator)


def draw_normal(shape: tuple[int, ...], seed: int) -> Any:
    """Standard normal numbers of a shape, from a generator of their own."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
