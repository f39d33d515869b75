"""Keras 3 on torch: one callback. A tower of sigmoids is named by its layers, and the training ended."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np

import unvanish
from unvanish.integrations.keras import KerasWatch


def main() -> None:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation="sigmoid", name=f"hidden{k}") for k in range(12)]
    model = keras.Sequential([keras.Input((20,)), *hidden, keras.layers.Dense(4)])
    x = np.random.default_rng(0).standard_normal((512, 20)).astype("float32")

    print(unvanish.forecast(model, (20,)).findings[0].cause, "\n")  # before there is data

    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    watch = KerasWatch(stop=True)
    model.fit(x, x[:, :4].argmax(1), batch_size=32, epochs=4, verbose=0, callbacks=[watch])
    print(watch.watch)


if __name__ == "__main__":
    main()
