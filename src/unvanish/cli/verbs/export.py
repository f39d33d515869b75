"""`unvanish export model=... format=...`: saved weights in another format."""

from __future__ import annotations

from unvanish.cli.arguments import ANY_OPTION, Words, load_model, read_arguments, train_errors
from unvanish.cli.errors import stoppable
from unvanish.cli.outcome import free_stdout, is_alone, write_json

ORDER = 150
CONTEXT = ANY_OPTION

PAGE = """unvanish export NAME=VALUE ...

    unvanish export model=runs/classify/resnet20/weights/best.safetensors format=onnx [path=net.onnx]
    formats: onnx, torchscript, openvino, safetensors; imgsz=96 half=true, and for onnx dynamic=true opset=18
    simplify=false"""


@stoppable
def export(words: Words = None) -> None:
    """Write saved weights in another format. See `unvanish export --help`."""
    given = read_arguments(words, "export", PAGE, ("model",))
    if given is None:
        return
    with train_errors():
        alone = is_alone(json := given.pop("json", None))
        form = given.pop("format", "onnx")
        with free_stdout(alone):
            path = load_model(given, given.pop("model")).export(form, given.pop("path", None), **given)
        if not alone:
            print(f"wrote {path}")
    if json:
        from unvanish.reports.documents import file

        write_json(file.build(path, str(form)), json)
