"""PEFT: LoRA under the Trainer. B begins at zero, which is meant: `check` and `watch` find no fault in it."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import unvanish
from unvanish.integrations.transformers import TransformersWatch


def count_up(begin: int, by: int) -> dict[str, torch.Tensor]:
    numbers = (begin + by * torch.arange(12)) % 32
    return {"input_ids": numbers, "labels": numbers}


def main() -> None:
    torch.manual_seed(0)
    size = GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(GPT2LMHeadModel(size), lora)
    data = [count_up(begin, by) for begin in range(32) for by in (1, 2, 3)]
    batch = {name: torch.stack([row[name] for row in data[:8]]) for name in data[0]}
    print("check:", [f"{f.severity} {f.code}" for f in unvanish.check(model, batch).findings])

    arguments = TrainingArguments(
        "out", max_steps=20, per_device_train_batch_size=8, learning_rate=1e-2, logging_steps=5, report_to=[],
        save_strategy="no", use_cpu=True,
    )  # fmt: skip
    watch = TransformersWatch()
    Trainer(model, arguments, train_dataset=data, callbacks=[watch]).train()
    print(watch.watch)


if __name__ == "__main__":
    main()
