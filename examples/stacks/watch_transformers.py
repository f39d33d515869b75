"""Hugging Face's Trainer: one callback. A learning rate far too large is found at once, which ends it all."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from unvanish.integrations.transformers import TransformersWatch


def count_up(begin: int, by: int) -> dict[str, torch.Tensor]:
    numbers = (begin + by * torch.arange(12)) % 32
    return {"input_ids": numbers, "labels": numbers}


def main() -> None:
    torch.manual_seed(0)
    size = GPT2Config(vocab_size=32, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    arguments = TrainingArguments(
        "out", max_steps=60, per_device_train_batch_size=8, learning_rate=0.3, lr_scheduler_type="constant",
        logging_steps=10, report_to=[], save_strategy="no", use_cpu=True,
    )  # fmt: skip
    watch = TransformersWatch(stop=True)
    data = [count_up(begin, by) for begin in range(32) for by in (1, 2, 3)]
    trainer = Trainer(GPT2LMHeadModel(size), arguments, train_dataset=data, callbacks=[watch])
    trainer.train()
    print(watch.watch)
    print(
        f"ended after {trainer.state.global_step} steps; the log holds {sorted(trainer.state.log_history[0])}"
    )


if __name__ == "__main__":
    main()
