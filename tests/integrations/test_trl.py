"""TRL's and PEFT's trainers under the Transformers callback: no bit changes, only real faults are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore", "error:unvanish")]

from datasets import Dataset  # noqa: E402 - only where TRL is
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

from unvanish.integrations.transformers import TransformersWatch  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(29))]
LORA = {"r": 4, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}


def make(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    size = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=2, max_position_embeddings=64))


def spell(tokens: Any) -> str:
    return " ".join(WORDS[3 + int(token) % 29] for token in tokens)


def train(kind: str, folder: Path, watch: Any = None, lora: bool = False, **options: Any) -> Any:
    words = Tokenizer(models.WordLevel({w: k for k, w in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    settings = {
        "max_steps": 10, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1,
        "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "bf16": False,
        **options,
    }  # fmt: skip
    more: dict[str, Any] = {"peft_config": peft.LoraConfig(**LORA)} if lora else {}
    starts = range(29)
    if kind == "SFT":
        data = Dataset.from_dict({"text": [spell(range(k, k + 10)) for k in starts]})
    else:
        data = Dataset.from_dict({
            "prompt": [spell(range(k, k + 5)) for k in starts],
            "chosen": [" " + spell(range(k + 5, k + 10)) for k in starts],
            "rejected": [" " + spell(range(k + 11, k + 16)) for k in starts],
        })  # fmt: skip
        more |= {} if lora else {"ref_model": make()}
    trainer = getattr(trl, f"{kind}Trainer")(
        make(),
        args=getattr(trl, f"{kind}Config")(str(folder), **settings),
        train_dataset=data,
        processing_class=tokens,
        callbacks=[] if watch is None else [watch],
        **more,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("lora", [False, True], ids=["", "LoRA"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
@pytest.mark.parametrize("kind", ["SFT", "DPO"])
def test_a_fine_tuning_is_watched_and_no_bit_changes(
    kind: str, options: dict[str, Any], lora: bool, tmp_path: Path
) -> None:
    alone, callback = (
        train(kind, tmp_path, lora=lora, **options),
        TransformersWatch(every=1, on_finding="silent"),
    )
    watched = train(kind, tmp_path, callback, lora=lora, **options)
    assert all(map(torch.equal, watched.model.parameters(), alone.model.parameters()))
    rows = watched.state.log_history[:-1]
    assert [row["loss"] for row in rows] == [row["loss"] for row in alone.state.log_history[:-1]]
    watch = callback.watch
    assert [f.code for f in watch.findings if f.severity != "note"] == []
    assert (watch.steps, len(watch.history.look_steps)) == (10, 10)
    for row in rows:
        assert row["unvanish/loss"] == pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.parametrize(("kind", "rate"), [("SFT", 1.0), ("DPO", 1.0)])
def test_a_rate_far_too_large_is_named(kind: str, rate: float, tmp_path: Path) -> None:
    callback = TransformersWatch(every=1, on_finding="silent")
    train(kind, tmp_path, callback, learning_rate=rate, max_steps=30)
    assert {"OPT001", "OPT008"} & {f.code for f in callback.watch.findings}
