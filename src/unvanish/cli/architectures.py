"""`timm:NAME` and `hf:NAME`: published architectures with random weights, from their configuration alone.

Notable:
- `hf:gpt2,n_layer=4,n_embd=128` changes the configuration; `hf:path/to/config.json` reads one from disk.
- Nothing is downloaded, and a model too large for this machine is refused before its weights are allocated.
- The random batch has the shape in the configuration, and the report says so.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unvanish.cli import random_batches
from unvanish.cli.errors import CallError, their_code
from unvanish.cli.subject import Batch, Subject
from unvanish.core.registry import suggest

HEADS = {  # tried in this order
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForSpeechSeq2Seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "AutoModelForAudioClassification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
    "AutoModel": "MODEL_MAPPING",
}
LAYERS = 10_000  # of a model, at most
COPIES = 5  # memory of a check / that of the float32 weights: weights, gradients, copies for experiments


def load_timm(text: str) -> Subject:
    """A timm model by its name, with random weights; CallError if the name is unknown or timm is missing."""
    name, options = _parse(text, "timm")
    with _require("timm", "timm", text):
        import timm as library
    if not library.is_model(name):
        near = suggest(name, library.list_models())
        raise CallError(f"MODEL timm:{name}: timm has no model {name!r}{near}")
    with their_code(f"MODEL timm:{text}: timm"):
        model = library.create_model(name, pretrained=False, **options)
    own = tuple(model.default_cfg.get("input_size") or (3, random_batches.PIXELS, random_batches.PIXELS))

    def batch(size: int, seed: int, shape: tuple[int, ...] | None) -> Batch:
        whole = (size, *(shape or own))
        assumption = f"the input is random, seed {seed}: standard normal, shape {whole}"
        return Batch(random_batches.draw_normal(whole, seed), (assumption,))

    return Subject(f"timm:{text}", model, random_batch=batch)


def load_hf(text: str) -> Subject:
    """A Transformers model from a model type or a local configuration, with its usual head."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    name, options = _parse(text, "hf")
    with _require("hf", "transformers", text):
        import transformers as library
    library.logging.set_verbosity_error()
    config = _config(library, name, options)
    _refuse_layers(config, f"MODEL hf:{text}")
    build = _builder(library, config)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = getattr(config, "pad_token_id", None) or 0
    with their_code(f"MODEL hf:{text}: building {type(config).__name__}"):
        _refuse_large(build, config, f"MODEL hf:{text}")
        model = build(config)
    return Subject(f"hf:{text}", model, random_batch=functools.partial(random_batches.make_batch, model))


def _parse(text: str, kind: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `NAME,key=value,key=value`."""
    name, *pairs = text.split(",")
    if not name:
        example = "gpt2" if kind == "hf" else "resnet18"
        raise CallError(f"MODEL {kind}: names no model; write {kind}:{example}")
    for pair in pairs:
        if "=" not in pair:
            raise CallError(f"MODEL {kind}:{text}: {pair!r} is not an option; write {kind}:{name},key=value")
    return name, {key: _read_literal(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def _read_literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@contextmanager
def _require(kind: str, library: str, text: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        problem = "is not installed" if error.name == library else f"cannot be imported ({error})"
        raise CallError(
            f"MODEL {kind}:{text}: {library} {problem}; pip install 'unvanish[{kind}]'"
        ) from error


def _config(library: Any, name: str, options: Mapping[str, Any]) -> Any:
    local = Path(name)
    if local.is_dir() or local.suffix == ".json":
        return _local_config(library, local, options)
    if name not in library.CONFIG_MAPPING:
        near = suggest(name, library.CONFIG_MAPPING.keys())
        near += "; names on the hub are not downloaded" if "/" in name else ""
        near += "; give a model type such as gpt2, or the path of a config.json"
        raise CallError(f"MODEL hf:{name}: {name!r} is not a model type of Transformers{near}")
    with their_code(f"MODEL hf:{name}: its configuration"):
        _refuse_options(library.AutoConfig.for_model(name), options, name)
        return library.AutoConfig.for_model(name, **options)


def _local_config(library: Any, path: Path, options: Mapping[str, Any]) -> Any:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise CallError(f"MODEL hf:{path}: there is no file {file}")
    with their_code(f"MODEL hf:{path}: its configuration"):
        config = library.AutoConfig.from_pretrained(str(file), local_files_only=True, trust_remote_code=False)
        _refuse_options(config, options, str(path))
        config.update(dict(options))
    return config


def _refuse_layers(config: Any, what: str) -> None:
    """Refuse a number of layers that would take for ever even to count."""
    for key, value in config.to_dict().items():
        many = isinstance(value, int) and value > LAYERS and any(word in key for word in ("layer", "expert"))
        if many:
            raise CallError(f"{what}: {key}={value} is more than the {LAYERS:,} that are built")


def _refuse_options(config: Any, options: Mapping[str, Any], name: str) -> None:
    known = {*config.to_dict(), *config.attribute_map, "num_labels"}
    for key in options:
        if key not in known:
            kind = type(config).__name__
            raise CallError(f"MODEL hf:{name}: {kind} has no option {key!r}{suggest(key, sorted(known))}")


def _builder(library: Any, config: Any) -> Any:
    """The function that builds the model: the configuration's architecture, else the first head that fits."""
    for name in config.architectures or ():
        if isinstance(getattr(library, name, None), type):
            return getattr(library, name)._from_config
    for auto, mapping in HEADS.items():
        if type(config) in getattr(library, mapping):
            return getattr(library, auto).from_config
    raise CallError(f"MODEL hf: Transformers has no model for {type(config).__name__}")


def _refuse_large(build: Any, config: Any, what: str) -> None:
    import torch

    with torch.device("meta"):
        count = sum(p.numel() for p in build(config).parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    need = 4 * count * COPIES
    if memory and need > memory:
        size = f"{count / 1e9:.1f} billion parameters; a check needs about {need / 2**30:.0f} GiB"
        smaller = "make it smaller, as in hf:llama,hidden_size=256,num_hidden_layers=4"
        raise CallError(f"{what} has {size}, this machine has {memory / 2**30:.0f} GiB; {smaller}")
