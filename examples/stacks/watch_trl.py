"""TRL: the same callback in an SFTTrainer. A healthy fine-tuning: nothing is said, and nothing changes."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from unvanish.integrations.transformers import TransformersWatch

WORDS = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(29))]


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def main() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        )
    )
    lines = [
        " ".join(WORDS[3 + (begin + by * k) % 29] for k in range(10)) for begin in range(29) for by in (1, 2)
    ]
    arguments = SFTConfig(
        "out", max_steps=20, per_device_train_batch_size=8, learning_rate=3e-3, logging_steps=5, report_to=[],
        save_strategy="no", use_cpu=True, bf16=False,
    )  # fmt: skip
    watch = TransformersWatch()
    trainer = SFTTrainer(
        model,
        arguments,
        train_dataset=Dataset.from_dict({"text": lines}),
        processing_class=make_tokenizer(),
        callbacks=[watch],
    )
    trainer.train()
    print(watch.watch)


if __name__ == "__main__":
    main()
