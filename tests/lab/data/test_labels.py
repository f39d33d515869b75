"""Label files: what is wrong is named with its line, the rest is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unvanish.lab.data.label_lines import MOST
from unvanish.lab.data.labels import Form, Labels, extent, label_file, parse_labels, read_labels

GOOD = "1 0.5 0.5 0.2 0.2"
THREE = Form(("cat", "dog", "traffic light"))


@pytest.mark.parametrize(
    ("line", "sort", "told"),
    [
        ("3 0.5 0.5 0.2 0.2", "class out of range", "class 3, but the classes are 0 to 2"),
        ("-1 0.5 0.5 0.2 0.2", "class out of range", "class -1"),
        ("1.5 0.5 0.5 0.2 0.2", "class out of range", "class 1.5"),
        ("1 0.5 0.5 0.2", "wrong count", "4 numbers instead of 5"),
        ("1 0.5 0.5 0.2 0.2 9", "wrong count", "6 numbers instead of 5"),
        ("1 320 240 64 48", "coordinate out of range", "320 is outside 0 to 1"),
        ("1 0.5 -0.2 0.2 0.2", "coordinate out of range", "-0.2"),
        ("1 0.5 0.5 0 0.2", "no area", "width 0"),
        ("1 0.5 nan 0.2 0.2", "not numbers", "not finite"),
        ("ct 0.5 0.5 0.2 0.2", "unknown class", "no class 'ct' (did you mean 'cat'?)"),
        ("1 0.5 0.5 o.2 0.2", "not numbers", "'1 0.5 0.5 o.2 0.2'"),
        (GOOD, "duplicate label", "the same as line 1"),
    ],
)
def test_a_wrong_box_is_named_with_its_line(line, sort, told):
    labels, problems = parse_labels(f"{GOOD}\n\n{line}\n", "a.txt", THREE)
    assert [(p.line, p.sort) for p in problems] == [(3, sort)]
    assert told in problems[0].why and str(problems[0]).startswith("a.txt:3: ")
    assert labels.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "sort"),
    [
        ("1 0.1 0.1 0.9 0.9 0.5", "wrong count"),
        ("1 0.1 0.1 0.9 0.1 0.5 0.1", "no area"),
        ("1 0.1 0.1 0.9 0.1 0.5 1.4", "coordinate out of range"),
    ],
)
def test_a_wrong_polygon_is_named(line, sort):
    labels, problems = parse_labels(f"0 0.1 0.1 0.9 0.1 0.5 0.8\n{line}", "a.txt", THREE)
    assert [(p.line, p.sort) for p in problems] == [(2, sort)]
    np.testing.assert_allclose(labels.boxes, [[0.5, 0.45, 0.8, 0.7]], atol=1e-6)
    assert len(labels.polygons) == 1


def test_segmentation_takes_no_boxes_for_polygons():
    assert [p.sort for p in parse_labels(GOOD, "a.txt", Form(THREE.names, polygons=True))[1]] == [
        "box without outline"
    ]


BOX = (0.5, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("1,0.5,0.4,0.2,0.1", "commas"),
        ("1;0.5;0.4;0.2;0.1", "commas"),
        ("1, 0.5, 0.4, 0.2, 0.1", "commas"),
        ("1 0,5 0,4 0,2 0,1", "decimal commas"),
        ("dog 0.5 0.4 0.2 0.1", "names of classes"),
        ("Traffic Light 0.5 0.4 0.2 0.1", "names of classes"),
        ("1 0.5 0.4 0.2 0.1 0.93", "a confidence"),
        ("1 320 192 128 48", "pixel coordinates"),
        ("1 256 168 384 168 384 216 256 216", "pixel coordinates"),
        ("\t1\t0.5 0.4  0.2\t0.1\r\n", ""),
    ],
)
def test_what_can_only_mean_one_thing_is_read_and_said(text, sort):
    labels, problems = parse_labels(text, "a.txt", Form(THREE.names, size=(640, 480)))
    np.testing.assert_allclose(labels.boxes, [BOX], atol=1e-6)
    assert [p.sort for p in problems] == ([sort] if sort else [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_label_files_of_any_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("1 0.5 0.4 0.2 0.1\n0 0.5 0.4 0.2 0.1\n".encode(encoding))
    labels, problems = read_labels(tmp_path / "a.txt", THREE)
    assert labels.classes.tolist() == [1, 0]
    assert [p.sort for p in problems] == ([] if encoding == "utf-8-sig" else ["other encoding"])


@pytest.mark.parametrize(
    "line", ["1 600 200 200 100", "1 320 0.4 100 40", "1 320 192 128 48\n1 0.5 0.4 0.2 0.1"]
)
def test_what_may_not_be_pixels_is_left_out(line):
    problems = parse_labels(line, "a.txt", Form(THREE.names, size=(640, 480)))[1]
    assert {p.sort for p in problems} == {"coordinate out of range"}


def test_boxes_among_polygons():
    text = f"0 0.1 0.1 0.9 0.1 0.5 0.8\n{GOOD}"
    labels, problems = parse_labels(text, "a.txt", THREE)
    assert not problems and len(labels.boxes) == 2 and not labels.polygons
    labels, problems = parse_labels(text, "a.txt", Form(THREE.names, polygons=True))
    assert [(p.line, p.sort) for p in problems] == [(2, "box without outline")] and len(labels.polygons) == 1


@pytest.mark.parametrize(
    ("content", "sort"),
    [(None, "no label file"), (b" \n", "empty label file"), (b"\xff\xfe\x00", "broken label file")],
)
def test_files_without_labels_are_background(tmp_path, content, sort):
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    labels, problems = read_labels(file, THREE)
    assert [p.sort for p in problems] == [sort] and labels.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("d/images/train/x.jpg", "d/labels/train/x.txt"),
        ("images/a/images/b.c.png", "images/a/labels/b.c.txt"),
        ("photos/x.jpg", "photos/x.txt"),
    ],
)
def test_the_last_images_becomes_labels(image, label):
    assert label_file(Path(image)) == Path(label)


CORNER = st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99))


OBJECT = st.tuples(st.integers(0, 2), st.lists(CORNER, min_size=3, max_size=8))


@given(st.lists(OBJECT, min_size=1, max_size=5))
def test_labels_are_read_as_they_were_written(objects):
    polygons = tuple(np.round(np.array(points, np.float32), 5) for _, points in objects)
    assume(all((np.ptp(p, 0) > 1e-4).all() for p in polygons))
    assume(len({p.tobytes() for p in polygons}) == len(polygons))
    classes = np.array([c for c, _ in objects])
    labels = Labels(classes, np.stack([extent(p) for p in polygons]), polygons)
    again, problems = parse_labels("\n".join(labels.lines()), "a.txt", THREE)
    assert not problems and again.classes.tolist() == classes.tolist()
    np.testing.assert_allclose(again.boxes, labels.boxes, atol=1e-5)
    for one, other in zip(again.polygons, polygons, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_confidences_of_many_lines_take_no_time():
    text = "\n".join(f"1 0.5 0.5 0.2 0.2 0.{i:06d}" for i in range(9_000))
    labels, problems = parse_labels(text, "a.txt", THREE)
    assert labels.classes.tolist() == [1] and {p.sort for p in problems} == {
        "a confidence",
        "duplicate label",
    }


def test_many_lines_of_unknown_classes_take_no_time():
    text = "\n".join(f"kat{i % 3} 0.5 0.5 0.2 0.2" for i in range(200_000))
    problems = parse_labels(text, "a.txt", Form(tuple(f"class {i}" for i in range(500))))[1]
    assert len(problems) == 2 * MOST + 1 and problems[-1].sort == "too many labels"
