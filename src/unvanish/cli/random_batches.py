"""Random batches for Transformers models: the input under the model's own keyword, in the shape it states.

Notable:
- Labels are added where the head makes a loss of them: ids for language, classes for classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unvanish.cli.errors import CallError
from unvanish.cli.subject import Batch

TOKENS, PIXELS, SAMPLES = 32, 224, 16_000  # where neither the call nor the configuration states a size


def batch(model: Any, size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
    """Random input under the model's own keyword, with labels where the model makes a loss of them."""
    import torch

    name, config = model.main_input_name, model.config
    told = f"{name} is random, seed {seed}"
    generator = torch.Generator().manual_seed(seed)
    vocabulary = _vocabulary(model)
    if name == "input_ids":
        ids = torch.randint(vocabulary, (size, *(shape or (TOKENS,))), generator=generator)
        made, told = {name: ids}, f"{told}: token ids below {vocabulary}, shape {tuple(ids.shape)}"
    else:
        whole = (size, *(shape or _own_shape(name, config)))
        made, told = {name: normal(whole, seed)}, f"{told}: standard normal, shape {whole}"
    labels = _labels(model, made[name], vocabulary, generator)
    if labels is None:
        return Batch(made, (told,))
    kind = "the labels are the same ids" if labels is made[name] else "the labels are random"
    return Batch({**made, "labels": labels}, (told, kind))


def _vocabulary(model: Any) -> int:
    """The number of rows of the token table, 0 where the model has none."""
    import torch

    tables = [m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    return int(getattr(model.config.get_text_config(), "vocab_size", None) or max(tables, default=0))


def _own_shape(name: str, config: Any) -> tuple[int, ...]:
    """The shape, without the batch, that a configuration states for its input."""
    if name == "pixel_values":
        part = getattr(config, "vision_config", config)
        side = getattr(part, "image_size", None) or PIXELS
        sides = tuple(side.values()) if isinstance(side, Mapping) else side
        return (getattr(part, "num_channels", 3), *((sides, sides) if isinstance(sides, int) else sides))
    if name == "input_features" and hasattr(config, "max_source_positions"):
        return (config.num_mel_bins, 2 * config.max_source_positions)
    if name == "input_values":
        return (SAMPLES,)
    raise CallError(f"MODEL hf: no random batch is known for the input {name!r}; give one with --data")


def _labels(model: Any, made: Any, vocabulary: int, generator: Any) -> Any:
    """Labels for the model's own loss: the ids themselves, random classes, or None where none are known."""
    import torch

    head, classes = type(model).__name__, model.config.num_labels
    shape = tuple(made.shape) if "TokenClassification" in head else (len(made),)
    if "Classification" not in head:
        if not head.endswith(("LM", "LMHeadModel", "ConditionalGeneration")):
            return None
        if not made.is_floating_point():
            return made
        shape, classes = (len(made), TOKENS), vocabulary
    return torch.randint(classes, shape, generator=generator)


def normal(shape: tuple[int, ...], seed: int) -> Any:
    """Standard normal numbers of a shape, from a generator of their own."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
