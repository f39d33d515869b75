"""Keras 3 on torch: check, cure and forecast by layer, and the callback in the real `fit`."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import unvanish

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

from unvanish.integrations.keras import KerasWatch  # noqa: E402 - only where Keras is
from unvanish.probes.layers import name_modules, name_parameters  # noqa: E402


def build(kind: str = "relu", depth: int = 3) -> Any:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation=kind, name=f"hidden{k}") for k in range(depth)]
    return keras.Sequential([keras.Input((20,)), *hidden, keras.layers.Dense(1, name="head")])


class Losses(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []
        self.raises = -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.values.append(float(logs["loss"]))
        if len(self.values) == self.raises:
            raise ValueError("the user's own")


def fit(model: Any, data: Any, watch: Any, *, scaled: bool = False, **options: Any) -> Any:
    optimizer = options.pop("kind", keras.optimizers.Adam)(options.pop("lr", 1e-3), **options)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    losses = Losses()
    callbacks = [losses] if watch is None else [losses, watch]
    history = model.fit(*data, batch_size=16, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
    return losses.values, history.history


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 32),
        ({"gradient_accumulation_steps": 4}, 8),
        ({"clipnorm": 0.5}, 32),
        ({"scaled": True}, 32),
    ],
)
def test_no_bit_changes(draw, options, steps) -> None:
    plain, _ = fit(build(), draw(), None, **options)
    watch = KerasWatch(on_finding="silent")
    watched, history = fit(model := build(), draw(), watch, **options)
    assert watched == plain
    assert (watch.watch.steps, watch.watch.findings, watch.watch.failure) == (steps, [], "")
    assert len(history["unvanish/gradient_norm"]) == 2
    assert watch.watch.closed and "apply" not in vars(model.optimizer)


def test_a_tower_of_sigmoids_is_named_by_its_layers(draw) -> None:
    watch = KerasWatch(on_finding="silent", every=5)
    fit(build("sigmoid", 10), draw(), watch)
    (first, *_) = watch.watch.findings
    assert first.code == "ACT002" and first.sites[0].startswith("hidden")
    check = unvanish.check(build("sigmoid", 10), tuple(map(torch.from_numpy, draw())), nn.MSELoss())
    assert check.findings[0].code == "ACT002" and "hidden3.sigmoid" in check.findings[0].sites


def test_a_rate_a_hundred_times_too_large_is_named_and_ends_the_training(draw) -> None:
    watch = KerasWatch(on_finding="silent", stop=True)
    losses, _ = fit(build(), draw(), watch, lr=1.0)
    assert {f.code for f in watch.watch.findings} & {"OPT001", "OPT008"}
    assert len(losses) < 32


@pytest.mark.parametrize("parts", [None, 4])
def test_a_batch_of_nan_is_survived(draw, parts) -> None:
    watch = KerasWatch(on_finding="guard")
    fit(model := build(), draw(100), watch, gradient_accumulation_steps=parts)
    assert "NUM001" in [f.code for f in watch.watch.findings]
    assert all(bool(torch.isfinite(v.value).all()) for v in model.trainable_variables)


def test_it_ends_with_a_training_that_raises(draw) -> None:
    watch, losses = KerasWatch(on_finding="silent"), Losses()
    losses.raises = 5
    model = build()
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="own"):
        model.fit(*draw(), batch_size=16, verbose=0, callbacks=[losses, watch])
    gc.collect()
    assert watch.watch.closed and watch.watch.steps == 5


def test_forecast_follows_models_whose_copy_is_built_anew() -> None:
    assert unvanish.forecast(build("sigmoid", 10), (20,)).findings[0].code == "ACT002"
    assert unvanish.forecast(build(), (20,)).findings == ()


def test_layers_and_their_weights_have_names_in_every_kind_of_model() -> None:
    x = keras.Input((8,))
    inner = keras.Sequential([keras.layers.Dense(8, name="deep")], name="inner")
    functional = keras.Model(x, keras.layers.Dense(2, name="out")(inner(x)))
    assert {"inner.deep", "out"} <= {name for name, _ in name_modules(functional)}
    assert set(name_parameters(functional)) == {
        f"{p}.{leaf}" for p in ("inner.deep", "out") for leaf in ("kernel", "bias")
    }

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first = keras.layers.Dense(8)
            self.blocks = [keras.layers.Dense(8, name=f"block{k}") for k in range(2)]

        def call(self, x: Any) -> Any:
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return x

    own = Own()
    own(torch.zeros(2, 8))
    assert {"first", "block0", "block1"} <= {name for name, _ in name_modules(own)}
    assert {"first.kernel", "block1.bias"} <= set(name_parameters(own))


def test_arguments_are_judged_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="evry"):
        KerasWatch(evry=3)
    copied = pickle.loads(pickle.dumps(KerasWatch(every=3, on_finding="silent").attachment))
    assert copied.watch is None and copied.options == {"every": 3}


@pytest.mark.parametrize("interactive", [True, False])
def test_findings_are_written_where_keras_writes(draw, hear, capsys, interactive) -> None:
    records = hear("absl")
    (keras.config.enable_interactive_logging if interactive else keras.config.disable_interactive_logging)()
    try:
        fit(build("sigmoid", 10), draw(), KerasWatch(every=5))
    finally:
        keras.config.enable_interactive_logging()
    said = capsys.readouterr()
    assert said.out.count("error[ACT002]") == interactive and "ACT002" not in said.err
    assert sum("error[ACT002]" in r.getMessage() for r in records) == (not interactive)
