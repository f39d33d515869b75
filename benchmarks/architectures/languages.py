"""Models of the transformers library from configurations: no download, small widths, honest depth."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.architectures import Builder, Subject

SMALL = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
PATCH = {**SMALL, "image_size": 32, "patch_size": 8, "num_labels": 10}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 64, **SPECIAL}
SEQ = {
    "vocab_size": 256,
    "d_model": 64,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    **SPECIAL,
}

# name: (class, configuration, task)
MODELS: dict[str, tuple[str, str, Mapping[str, Any], str]] = {
    "BERT": ("BertForMaskedLM", "BertConfig", SMALL, "tokens"),
    "RoBERTa": ("RobertaForSequenceClassification", "RobertaConfig", {**SMALL, "num_labels": 3}, "classes"),
    "DistilBERT": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 256, "dim": 64, "hidden_dim": 256, "n_heads": 4},
        "tokens",
    ),
    "ALBERT": ("AlbertForMaskedLM", "AlbertConfig", {**SMALL, "embedding_size": 32}, "tokens"),
    "ELECTRA": ("ElectraForMaskedLM", "ElectraConfig", {**SMALL, "embedding_size": 32}, "tokens"),
    "DeBERTa v2": (
        "DebertaV2ForMaskedLM",
        "DebertaV2Config",
        {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        "tokens",
    ),
    "MPNet": ("MPNetForMaskedLM", "MPNetConfig", SMALL, "tokens"),
    "ModernBERT": (
        "ModernBertForMaskedLM",
        "ModernBertConfig",
        {**SMALL, **SPECIAL, "cls_token_id": 1, "sep_token_id": 2},
        "tokens",
    ),
    "GPT-2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 256, "n_embd": 64, "n_layer": 12, "n_head": 4, **SPECIAL},
        "tokens",
    ),
    "GPT-NeoX": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**SMALL, **SPECIAL}, "tokens"),
    "OPT": (
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 256,
            "hidden_size": 64,
            "ffn_dim": 256,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 64,
            **SPECIAL,
        },
        "tokens",
    ),
    "BLOOM": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 256, "hidden_size": 64, "n_layer": 12, "n_head": 4, **SPECIAL},
        "tokens",
    ),
    "LLaMA": ("LlamaForCausalLM", "LlamaConfig", LLAMA, "tokens"),
    "Mistral": ("MistralForCausalLM", "MistralConfig", LLAMA, "tokens"),
    "Qwen2": ("Qwen2ForCausalLM", "Qwen2Config", LLAMA, "tokens"),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**LLAMA, "head_dim": 16}, "tokens"),
    "Gemma": ("GemmaForCausalLM", "GemmaConfig", {**LLAMA, "head_dim": 16}, "tokens"),
    "Phi": ("PhiForCausalLM", "PhiConfig", {**SMALL, **SPECIAL}, "tokens"),
    "OLMo 2": ("Olmo2ForCausalLM", "Olmo2Config", LLAMA, "tokens"),
    "Falcon": ("FalconForCausalLM", "FalconConfig", {**SMALL, **SPECIAL}, "tokens"),
    "Mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**LLAMA, "num_local_experts": 4, "num_hidden_layers": 6},
        "tokens",
    ),
    "Mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 12, **SPECIAL},
        "tokens",
    ),
    "T5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": 256,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 256,
            "num_layers": 6,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        "tokens",
    ),
    "BART": (
        "BartForConditionalGeneration",
        "BartConfig",
        {**SEQ, "max_position_embeddings": 64, "decoder_start_token_id": 2},
        "tokens",
    ),
    "Marian": (
        "MarianMTModel",
        "MarianConfig",
        {**SEQ, "decoder_start_token_id": 0, "max_position_embeddings": 64},
        "tokens",
    ),
    "Pegasus": (
        "PegasusForConditionalGeneration",
        "PegasusConfig",
        {**SEQ, "decoder_start_token_id": 0, "max_position_embeddings": 64},
        "tokens",
    ),
    "ViT": ("ViTForImageClassification", "ViTConfig", PATCH, "images"),
    "DeiT": ("DeiTForImageClassification", "DeiTConfig", PATCH, "images"),
    "BEiT": ("BeitForImageClassification", "BeitConfig", PATCH, "images"),
    "DINOv2": ("Dinov2ForImageClassification", "Dinov2Config", {**PATCH, "use_mask_token": False}, "images"),
    "Swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 24,
            "depths": [2, 2, 6],
            "num_heads": [2, 4, 8],
            "window_size": 4,
            "num_labels": 10,
        },
        "images",
    ),
    "SegFormer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {"num_labels": 10, "hidden_sizes": [16, 32, 64, 64], "decoder_hidden_size": 64},
        "maps",
    ),
    "PoolFormer": (
        "PoolFormerForImageClassification",
        "PoolFormerConfig",
        {"hidden_sizes": [16, 32, 64, 64], "num_labels": 10},
        "images",
    ),
    "RegNet": (
        "RegNetForImageClassification",
        "RegNetConfig",
        {
            "embedding_size": 16,
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [2, 3, 4, 2],
            "groups_width": 16,
            "num_labels": 10,
        },
        "images",
    ),
    "ResNet (transformers)": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 16, "hidden_sizes": [32, 64, 96, 128], "num_labels": 10},
        "images",
    ),
    "ConvNeXt v2": (
        "ConvNextV2ForImageClassification",
        "ConvNextV2Config",
        {"hidden_sizes": [16, 32, 64, 96], "depths": [2, 2, 6, 2], "num_labels": 10},
        "images",
    ),
    "wav2vec 2.0": (
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {
            **SMALL,
            "num_labels": 3,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "conv_dim": (32,) * 7,
            "mask_time_prob": 0.0,
        },
        "sound",
    ),
    "Whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **SEQ,
            "num_mel_bins": 16,
            "max_source_positions": 50,
            "max_target_positions": 32,
            "decoder_start_token_id": 1,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        "speech",
    ),
    "CLIP": (
        "CLIPModel",
        "CLIPConfig",
        {
            "text_config": {**SMALL, "max_position_embeddings": 16, **SPECIAL},
            "vision_config": {**PATCH},
            "projection_dim": 32,
        },
        "pairs",
    ),
}


def builders() -> dict[str, Builder]:
    """A builder for each model that the installed transformers has."""
    if importlib.util.find_spec("transformers") is None:
        return {}
    import transformers

    known = {
        n: m
        for n, m in MODELS.items()
        if getattr(transformers, m[0], None) and getattr(transformers, m[1], None)
    }
    return {name: partial(_subject, *spec) for name, spec in known.items()}


def _subject(model: str, config: str, options: Mapping[str, Any], task: str) -> Subject:
    import transformers

    transformers.logging.set_verbosity_error()
    random.seed(0)
    torch.manual_seed(0)
    net = getattr(transformers, model)(getattr(transformers, config)(**options))
    if isinstance(net, transformers.MambaForCausalLM):
        net.config.use_cache = False
    return Subject(net.train(), _batch(task, model))


def _batch(task: str, model: str) -> dict[str, Tensor]:
    tokens = torch.randint(3, 256, (4, 16))
    if task == "tokens":
        return {
            "input_ids": tokens,
            "labels": tokens if "CausalLM" in model or "LMHead" in model else torch.randint(3, 256, (4, 16)),
        }
    if task == "classes":
        return {"input_ids": tokens, "labels": torch.randint(0, 3, (4,))}
    if task == "sound":
        return {"input_values": torch.randn(4, 4000), "labels": torch.randint(0, 3, (4,))}
    if task == "speech":
        return {"input_features": torch.randn(4, 16, 100), "labels": tokens}
    if task == "maps":
        return {"pixel_values": torch.randn(4, 3, 64, 64), "labels": torch.randint(0, 10, (4, 16, 16))}
    if task == "pairs":
        tokens = tokens.clone()
        tokens[:, -1] = 2
        return {"input_ids": tokens, "pixel_values": torch.randn(4, 3, 32, 32), "return_loss": True}  # type: ignore[dict-item]
    size = 32 if model.startswith(("ViT", "DeiT", "Beit", "Dino", "Swin")) else 64
    return {"pixel_values": torch.randn(8, 3, size, size), "labels": torch.randint(0, 10, (8,))}
