"""Test-time augmentation, batches and streams: what is found in several views lies where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unvanish.lab.detection.suppression import detections
from unvanish.train import Model
from unvanish.train.predict.views import VIEWS, call_in_views, call_once

SIDE = 96


class Bright(torch.nn.Module):
    """Finds the bright rectangle of each image, as a box, and its pixels, as the only prototype."""

    def __init__(self, masks: bool = False) -> None:
        super().__init__()
        self.masks, self.seen = masks, []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        made = []
        for image in x:
            ys, xs = (image[0] > 0.5).nonzero().T
            x1, y1, x2, y2 = (float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
            row = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.2, 0.6 + image.shape[-1] / 1000]
            made.append(row + [1.0] * self.masks)
        decoded = torch.tensor(made)[..., None]
        if not self.masks:
            return decoded
        return decoded, torch.nn.functional.avg_pool2d(x[:, :1], 4) * 10 - 5


def picture(x=20, y=30, wide=24, high=16):
    made = torch.zeros(1, 3, SIDE, SIDE)
    made[:, :, y : y + high, x : x + wide] = 1
    return made


@pytest.mark.parametrize("masks", [False, True])
def test_boxes_of_all_views_lie_on_the_object(masks):
    net = Bright(masks)
    output, prototypes = call_in_views(net, picture(), 2, 32)
    assert len(net.seen) == len(VIEWS) == output.shape[2]
    for cell in output[0].T:
        torch.testing.assert_close(cell[:4], torch.tensor([32.0, 38, 24, 16]), atol=2.5, rtol=0)
    (rows,) = detections(output, 2)
    assert len(rows) == 1 and int(rows[0, 5]) == 1  # one object, not one a view
    if masks:
        assert output.shape[1] == 4 + 2 + 3 and prototypes.shape == (1, 3, 24, 24)
        assert torch.equal(output[0, 6:] != 0, torch.eye(3, dtype=torch.bool))
        for prototype in prototypes[0]:
            assert float(prototype[8:11, 5:11].mean()) > 0 > float(prototype[:, 13:].max())
    else:
        assert prototypes is None
        assert torch.equal(call_once(net, picture())[0], output[..., :1])


def detector(net):
    preparation = {"input": "letterbox", "classes": 2, "size": SIDE}
    model = Model(net, task="detect")
    model.about = {"preparation": preparation, "names": ["cat", "dog"], "task": "detect"}
    return model


def image(**where):
    return (255 * picture(**where)[0]).to(torch.uint8)


def test_augment_looks_several_times():
    model = detector(Bright())
    (plain,), (found,) = model.predict(image()), model.predict(image(), augment=True)
    assert len(plain.boxes) == len(found.boxes) == 1
    torch.testing.assert_close(found.boxes.xyxy, plain.boxes.xyxy, atol=2.5, rtol=0)
    assert found.output.shape[-1] == 3 * plain.output.shape[-1]


def test_batches_give_what_single_pictures_give():
    pictures = [image(x=8 * i) for i in range(5)]
    one, many = detector(Bright()), detector(Bright())
    alone, together = one.predict(pictures), many.predict(pictures, batch=2)
    assert [s[0] for s in one.network.seen] == [1] * 5 and [s[0] for s in many.network.seen] == [2, 2, 1]
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.boxes.data, b.boxes.data) and a.origin == b.origin
        assert set(b.speed) == {"preprocess", "inference", "postprocess"}


def test_a_stream_holds_one_batch():
    asked = []

    def camera():
        for i in range(100):
            asked.append(i)
            yield image(x=i % 50).permute(1, 2, 0).numpy()

    stream = detector(Bright()).predict(camera(), stream=True, batch=4)
    assert not asked
    next(stream)
    assert len(asked) == 4
    for _ in range(3):
        next(stream)
    assert len(asked) == 4
    next(stream)
    assert len(asked) == 8
    stream.close()


def test_classes_are_chosen_before_the_best_are():
    class Two(torch.nn.Module):
        def forward(self, x):
            rows = [[30.0, 30, 20, 20, 0.9, 0.5], [60.0, 60, 20, 20, 0.2, 0.6], [31.0, 30, 20, 20, 0.1, 0.4]]
            return torch.tensor(rows).T[None].expand(len(x), -1, -1)

    model = detector(Two())
    (found,) = model.predict(image(), classes=["dog"], max_det=1)
    assert found.boxes.cls.tolist() == [1] and float(found.boxes.conf) == pytest.approx(0.6)
    (found,) = model.predict(image(), classes=1, agnostic_nms=True)
    assert found.boxes.conf.tolist() == pytest.approx([0.6, 0.4])  # no cat suppresses a dog


def test_shown_pictures_are_those_that_are_plotted(monkeypatch):
    from unvanish.train.predict import prediction

    shown = []
    monkeypatch.setattr(prediction, "open_on_screen", shown.append)
    (found,) = detector(Bright()).predict(image(), show=True)
    assert len(shown) == 1 and np.array_equal(np.asarray(shown[0]), np.asarray(found.plot(pil=True)))


def test_classifiers_look_at_the_mirror_image_too(tmp_path):
    model = Model(
        {"name": "s", "task": "classify", "layers": [{"module": "Flatten"}, {"module": "ClassifyHead"}]}
    )
    model.train(
        "digits.yaml", epochs=1, fraction=0.1, verbose=False, plots=False, watch=False, project=str(tmp_path)
    )
    digit = np.random.default_rng(0).integers(0, 255, (8, 8)).astype(np.uint8)
    (a,), (b,) = model.predict(digit), model.predict(digit[:, ::-1])
    (both,) = model.predict(digit, augment=True)
    torch.testing.assert_close(both.probs.data, (a.probs.data + b.probs.data) / 2)
    many = model.predict([digit, digit[:, ::-1]], batch=2)
    torch.testing.assert_close(many[1].probs.data, b.probs.data)
    (found,) = model.predict(digit, save=True, project=str(tmp_path / "out"))
    assert (tmp_path / "out/predict/array.jpg").is_file() and found.orig_img.shape == (8, 8, 3)
