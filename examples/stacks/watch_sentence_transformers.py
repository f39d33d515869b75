"""sentence-transformers: features and a loss for `check`, and the callback of the Hugging Face Trainer."""

import tempfile

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

import unvanish
from unvanish.integrations.transformers import TransformersWatch

WORDS = ["a", "the", "cat", "dog", "sits", "runs", "on", "mat", "road", "red", "blue", "car", "tree", "big"]
PAIRS = {
    "anchor": ["the cat sits", "a red car", "the big tree", "a dog runs"] * 8,
    "positive": ["a cat on the mat", "the car on the road", "a tree", "the dog on the road"] * 8,
}


def main(folder: str) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hidden = [Dense(32, 32, activation_function=nn.Sigmoid()) for _ in range(10)]
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32), *hidden], device="cpu")
    loss = MultipleNegativesRankingLoss(model)

    features = [model.preprocess(PAIRS[name][:4]) for name in PAIRS]
    print(unvanish.check(loss, (features, torch.zeros(4))), "\n")

    watch = TransformersWatch(stop=True)
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": True}
    arguments = Arguments(folder, save_strategy="no", disable_tqdm=True, **options)
    rows = Dataset.from_dict(PAIRS)
    SentenceTransformerTrainer(model, arguments, rows, loss=loss, callbacks=[watch]).train()
    print(watch.watch)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
