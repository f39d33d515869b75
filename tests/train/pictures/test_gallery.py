"""Pictures of batches and charts of a detector: what they show, and that they never end a run."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from tests.train.small_nets import DETECTOR

from unvanish.lab.data import open_data
from unvanish.lab.tasks import task
from unvanish.train import Model
from unvanish.train.pictures import curves, gallery, history, matrix
from unvanish.train.pictures.gallery import GAP, SIDE
from unvanish.train.predict import drawing
from unvanish.train.predict.boxes import Boxes

NAMES = ["circle", "square"]
SCENES = {"kind": "shapes", "samples": 8, "val_samples": 4, "names": ["circle", "square", "triangle", "star"]}
SMALL = {
    **DETECTOR,
    "task": "segment",
    "layers": [
        *DETECTOR["layers"][:-1],
        {"module": "Segment", "from": ["p3", "p4", "p5"], "masks": 4, "prototypes": 8},
    ],
}
CHARTS = {"PR_curve.png", "F1_curve.png", "confusion_matrix.png", "results.png"}
BATCHES = {"train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg"}


def run(folder, name, **settings):
    data = open_data(SCENES, task="segment", imgsz=64, batch=4)
    arguments = {
        "epochs": 1,
        "batch": 4,
        "verbose": False,
        "watch": False,
        "project": str(folder),
        **settings,
    }
    Model(SMALL).train(data, name=name, **arguments)
    return {path.name for path in (folder / name).iterdir()}


def test_a_run_leaves_pictures_unless_plots_are_off(tmp_path):
    from PIL import Image

    assert run(tmp_path, "drawn") >= CHARTS | BATCHES
    assert not run(tmp_path, "plain", plots=False) & (CHARTS | BATCHES)
    numbers = [(tmp_path / name / "results.csv").read_bytes() for name in ("drawn", "plain")]
    assert numbers[0] == numbers[1]  # drawing moves nothing
    for name in BATCHES:
        with Image.open(tmp_path / "drawn" / name) as image:
            assert image.size == (2 * SIDE + GAP, 2 * SIDE + GAP)


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr(gallery, "tile", lambda *_: 1 / 0)
    made = run(tmp_path, "run", verbose=True)
    printed = capsys.readouterr().out
    assert not made & (CHARTS | BATCHES) and history.MISSING in printed
    assert "train_batch0.jpg could not be drawn: division by zero" in printed
    assert "the pictures could not be drawn: division by zero" in printed


def test_labels_lie_where_they_are():
    y = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.25], [1, 0, 0.5, 0.5, 0.2, 0.2]])
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[0, 6:10, 4:12] = 1
    boxes, found = gallery.read_labels((y, masks), 0)
    assert boxes.xyxy.tolist() == [[SIDE / 4, SIDE * 3 / 8, SIDE * 3 / 4, SIDE * 5 / 8]]
    ys, xs = found.data[0].nonzero().T
    edges = [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
    assert edges == boxes.xyxy[0].tolist() and boxes.conf.isnan().all() and boxes.cls.tolist() == [1]
    assert len(gallery.read_labels((y, masks), 2)[0]) == 0 and gallery.read_labels(y, 1)[1] is None


def test_what_is_found_is_drawn_at_the_size_of_a_tile():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            row = torch.tensor([32.0, 32, 16, 16, 0.9, 0.1, 5.0])[None, :, None]
            prototypes = torch.full((1, 1, 16, 16), -1.0)
            prototypes[..., 6:10, 6:10] = 1
            return row.expand(len(x), -1, -1), prototypes.expand(len(x), -1, -1, -1)

    a = Model(SMALL).settle(None, {})
    seen = list(gallery.detect(Fixed(), torch.zeros(2, 3, 64, 64), a, 2))
    boxes, masks = seen[1]
    assert boxes.xyxy[0].tolist() == [SIDE * 3 / 8, SIDE * 3 / 8, SIDE * 5 / 8, SIDE * 5 / 8]
    assert len(seen) == 2 and masks.area[0] == pytest.approx((SIDE / 4) ** 2, rel=0.1)
    picture = gallery.tile(torch.zeros(2, 3, 64, 64), seen, NAMES, "nothing found")
    assert picture.size == (2 * SIDE + GAP, SIDE)
    assert picture.getpixel((SIDE // 2, SIDE // 2)) == tuple(
        int(drawing.SHADE * c) for c in drawing.choose_colour(0)
    )
    assert picture.getpixel((SIDE + GAP // 2, 3)) == (255, 255, 255) and picture.getpixel((3, 3)) == (0, 0, 0)


def test_words_do_not_lie_upon_each_other():
    taken = []
    for _ in range(4):
        place = drawing.find_place((10, 40, 60, 80), (30, 12), (100, 100), taken)
        assert not any(drawing._touch(place, other) for other in taken)
        taken.append(place)
    assert taken[0] == (10, 28, 40, 40)  # above
    assert drawing.find_place((-5, 2, 60, 80), (30, 12), (100, 100), [])[:2] == (0, 2)  # within, at the edge
    assert drawing.find_place((90, 50, 99, 60), (30, 12), (100, 100), [])[2] == 100


def test_labels_are_drawn_without_a_confidence():
    rows = torch.tensor([[20.0, 30, 80, 90, float("nan"), 0]])
    sure = rows.nan_to_num(0.5)
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    widths = []
    for data in (rows, sure):
        drawn = drawing.draw(image, Boxes(data, (100, 100)), NAMES)
        widths.append(sum(drawn.getpixel((x, 22)) != (0, 0, 0) for x in range(100)))
    assert 0 < widths[0] < widths[1] and drawing.contrast((255, 255, 0)) == (0, 0, 0)
    assert drawing.contrast((20, 20, 90)) == (255, 255, 255)


def tables(classes):
    facts = {"classes": classes, "size": 64}
    y = task("detect").invent_targets(2 * classes, facts, torch.Generator().manual_seed(0))
    output = torch.zeros(2 * classes, 4 + classes, 4)
    for number, row in enumerate(y):
        output[int(row[0]), :4, number % 4] = row[2:] * 64
        output[int(row[0]), 4 + int(row[1]), number % 4] = 0.2 + 0.7 * (number % 5) / 5
    metrics = task("detect").metrics(facts)
    metrics.update(output, y)
    return metrics.tables()


@pytest.mark.parametrize("classes", [3, 40])
def test_charts_of_few_and_of_many_classes(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    paths = curves.draw(tables(classes), names, tmp_path)
    assert {p.name for p in paths} == CHARTS - {"results.png"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in paths) and not list(tmp_path.glob("*.partial"))
    assert curves.draw({"confusion": [[1]]}, names, tmp_path) == []


def test_charts_hold_the_numbers():
    held = tables(3)
    chart = curves.draw_f1(held, ["a", "b", "c"], "boxes").to_dict()
    confidence, _, _, best = held["balance"].tolist()
    assert chart["title"] == f"boxes: F1 over confidence, best {best:.3f} at {confidence:.3f}"
    chart = curves.draw_precision(held, ["a", "b", "c"], "boxes").to_dict()
    assert (
        "mAP50 1.000" in chart["title"]
        and chart["layer"][0]["encoding"]["color"]["scale"]["domain"][0] == "all 1.000"
    )
    empty = task("detect").metrics({"classes": 3, "size": 64})
    empty.update(torch.zeros(1, 7, 4), torch.zeros(0, 6))
    assert "nothing is found" in curves.draw_f1(empty.tables(), [], "boxes").to_dict()["title"]


def test_the_background_is_a_row_more_than_there_are_names():
    table = [[5, 0, 1], [2, 3, 0], [4, 0, 0]]
    assert matrix.label_classes(3, NAMES) == ["circle", "square", "background"]
    assert matrix.label_classes(3, ["background", "x"])[-1] == "nothing" and matrix.label_classes(2, []) == [
        "0",
        "1",
    ]
    cells = matrix.list_cells(table, matrix.label_classes(3, NAMES), 2)
    assert len(cells) == 8 and cells[3] == {
        "truth": "square",
        "predicted": "circle",
        "share": 0.4,
        "count": 2,
    }
    assert len(matrix.list_cells(table, ["a", "b", "c"], 3)) == 9


def test_numbers_of_masks_have_a_panel_of_their_own():
    rows = [{"epoch": 1, "metrics/mAP50": 0.5, "metrics/mask mAP50": 0.4, "train/loss": 2.0}]
    assert history.group_columns(rows)[1:3] == [
        ("metrics", ["metrics/mAP50"]), ("metrics of masks", ["metrics/mask mAP50"]),
    ]  # fmt: skip


def test_each_part_of_a_loss_has_a_panel_and_an_axis_of_its_own():
    losses = {f"{where}/{part}_loss": 1.0 for where in ("train", "val") for part in ("box", "cls", "dfl")}
    rows = [
        {"epoch": e, "train/loss": 2.0, **losses, "metrics/mAP50": 0.0, "gradient": 1.0, "lr": 0.1}
        for e in (1, 2)
    ]
    panels = dict(history.group_columns(rows))
    assert panels["box loss"] == ["train/box_loss", "val/box_loss"] and panels["loss"] == ["train/loss"]
    chart = history.specify(rows, "run", {}, [])
    assert chart["bounds"] == "flush"  # panels are equally large and stand in rows and columns
    shown = {panel["title"]: panel for panel in chart["concat"]}
    assert {(p["width"], p["height"]) for p in shown.values()} == {(history.WIDTH, history.HEIGHT)}
    assert shown["metrics"]["encoding"]["y"]["scale"]["domain"] == [0, 1]  # of zeros


@pytest.mark.parametrize(("values", "domain"), [([0, 0], [0, 1]), ([2, 2], [1.8, 2.2]), ([-1], [-1.1, -0.9])])
def test_a_constant_has_an_axis(values, domain):
    assert history.choose_domain(values)["domain"] == pytest.approx(domain)
    assert history.choose_domain([0, 1]) == history.choose_domain([]) == {}


@pytest.mark.parametrize("count", [1, 2, 5, 10, 11, 12, 19, 20, 30, 99, 100, 300])
def test_the_first_and_the_last_epoch_are_ticks(count):
    found = history.choose_ticks(list(range(1, count + 1)))
    assert (found[0], found[-1]) == (1, count) and len(found) <= history.TICKS and found == sorted(set(found))
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert not gaps or gaps[-1] >= gaps[0] / 2


def test_classes_that_do_not_occur_are_marked():
    assert matrix.mark_absent([[1, 0], [0, 0]], ["a", "b"], 0) == ["a", "b (absent)"]
    assert matrix.mark_absent([[1, 0], [0, 0]], ["a", "background"], 1)[1] == "background"
    held = tables(3)
    held["pr"][1], held["ap50"][1] = -1, float("nan")
    chart = curves.draw_precision(held, ["a", "b", "c"], "boxes").to_dict()
    scale = chart["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"][2] == "b absent" and scale["range"][2] == curves.GREY
    title = matrix.draw_confusion([[1, 0], [0, 1]], ["a", "b"], 90, 90).to_dict()["layer"][0]["title"]
    assert title.startswith("confusion: counts, coloured by the share")


def test_narrow_images_are_made_square_with_their_objects():
    x = torch.rand(1, 3, 32, 64)
    rows, masks = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5]]), torch.zeros(1, 8, 16, dtype=torch.uint8)
    masks[0, 2:6, 4:12] = 1
    wide, (moved, large) = gallery.make_square(x, (rows, masks))
    assert wide.shape == (1, 3, 64, 64) and torch.equal(wide[:, :, :32], x)
    assert moved[0, 2:].tolist() == [0.5, 0.25, 0.5, 0.25] and large.shape == (1, 16, 16)
    assert (
        gallery.make_square(x, rows)[1].tolist() == moved.tolist()
        and gallery.make_square(wide, rows)[0] is wide
    )


def test_what_a_classifier_gets_wrong_is_framed(tmp_path):
    from PIL import Image

    from unvanish.train.pictures import examples

    model = Model(
        {"name": "s", "task": "classify", "layers": [{"module": "Flatten"}, {"module": "ClassifyHead"}]}
    )
    results = model.train(
        "digits.yaml", epochs=1, fraction=0.1, verbose=False, watch=False, project=str(tmp_path)
    )
    made = {p.name for p in results.save_dir.glob("*.jpg")}
    assert made == BATCHES
    with Image.open(results.save_dir / "val_batch0_pred.jpg") as picture:
        assert picture.size == (4 * examples.SIDE + 3 * examples.GAP,) * 2
    about = {"names": ["a", "b"], "preparation": {"mean": [0.5], "std": [0.5]}}
    x, y = torch.zeros(2, 1, 4, 4), torch.tensor([0, 0])
    tiles = examples.tile_classes(x, y, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), about)
    corners = [tiles.getpixel((left + 2, examples.SIDE - 3)) for left in (0, examples.SIDE + examples.GAP)]
    assert corners == [examples.RIGHT, examples.WRONG]
    plain = examples.tile_classes(x, y, None, about)
    assert plain.getpixel((2, examples.SIDE - 3)) == (128, 128, 128)  # the mean of the set is grey


def test_the_dearest_texts_are_listed(tmp_path):
    rows = [
        f"{'good fine' if i % 2 else 'bad dull'} film {'x ' * (i % 5)},{'pos' if i % 2 else 'neg'}"
        for i in range(60)
    ]
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(rows))
    data = {"kind": "table", "path": str(tmp_path), "train": "t.csv", "task": "sentiment"}
    settings = {"epochs": 1, "verbose": False, "watch": False, "project": str(tmp_path / "runs")}
    results = Model("lstm-sentiment.yaml").train(data, **settings)
    head, *lines = (results.save_dir / "top_losses.csv").read_text().splitlines()
    assert head == "loss,truth,predicted,confidence,text" and len(lines) > 3
    losses = [float(line.split(",")[0]) for line in lines]
    assert losses == sorted(losses, reverse=True) and "film" in lines[0]
