"""What lies beside an exported model, for people: its model card, and a short script that uses it.

Of model cards: M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The packages that it needs, beside NumPy and Pillow; what is imported; how the model is loaded; how it is called.
_USES = {
    "keras": (
        "tensorflow",
        "import keras",
        'model = keras.saving.load_model(home / "model.keras", safe_mode=True)',
        "np.asarray(model(image))[0]",
    ),
    "saved_model": (
        "tensorflow",
        "import tensorflow as tf",
        'model = tf.saved_model.load(home / "saved_model")',
        "model.serve(image).numpy()[0]",
    ),
    "litert": (
        "ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter",
        'model = Interpreter(str(home / "model.tflite"))\n'
        'place, result = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]',
        "model.get_tensor(result)[0]",
    ),
    "onnx": (
        "onnxruntime",
        "import onnxruntime",
        'model = onnxruntime.InferenceSession(home / "model.onnx")',
        "model.run(None, {model.get_inputs()[0].name: image})[0][0]",
    ),
    "openvino": (
        "openvino",
        "import openvino",
        'model = openvino.Core().compile_model(home / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        "model(image)[0][0]",
    ),
}
_USE = '''"""Label image files: python use.py photo.jpg (pip install numpy pillow {packages})"""
import json
import sys
from pathlib import Path

import numpy as np
{imports}from PIL import Image, ImageOps
{after}
home = Path(__file__).parent
about = json.loads((home / "model.json").read_text(encoding="utf-8"))
{load}

def pixels(path):
    """RGB (1, height, width, 3) uint8, as in training: upright, 16 bits scaled to 8, what is transparent over white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))[None]


for path in sys.argv[1:]:
    try:
        image = pixels(path)
    except Exception as error:  # whatever a decoder meets in a damaged file
        print(json.dumps({{"path": path, "error": str(error)}}))
        continue
{before}    p = {call}
    label = about["classes"][p.argmax()] if p.max() >= (about["threshold"] or 0) else None  # None: not sure enough
    print(json.dumps({{"path": path, "label": label, "probabilities": dict(zip(about["classes"], p.tolist()))}}))
'''
_RESIZED = """    model.resize_tensor_input(place, image.shape)
    model.allocate_tensors()
    model.set_tensor(place, image)
    model.invoke()
"""
_CARD = Path(__file__).parent / "templates" / "card.md"


def use_of(to: str) -> str:
    """The text of ``use.py`` for a format."""
    packages, imports, load, call = _USES[to]
    last = imports.startswith("import tensorflow")
    return _USE.format(
        packages=packages,
        imports="" if last else f"{imports}\n",
        after=f"{imports}\n" if last else "",
        load=load,
        call=call,
        before=_RESIZED if to == "litert" else "",
    )


def card_of(about: Mapping[str, Any]) -> str:
    """The model card, in Markdown, of what ``model.json`` tells."""
    counts = {split: f"{about['metrics'].get(split, {}).get('n', 0):,}" for split in ("train", "validation", "test")}
    return _CARD.read_text(encoding="utf-8").format(
        head=about["head"],
        count=len(about["classes"]),
        format=about["format"],
        precision=about["precision"],
        classes=_listed(about["classes"]),
        made=_made(about),
        **counts,
        packages=_USES[about["format"]][0],
        input=about["input"]["name"],
        temperature=about["temperature"],
        abstention=_abstention(about),
        scores="\n".join(_rows(about["metrics"])),
        agreement=_agreement(about),
        licences="\n".join(f"- {each['name']}: {each['licence']} ({each['source']})" for each in about["bases"])
        or "- No pretrained weights are in it.",
        versions=", ".join(f"{name} {number}" for name, number in about["versions"].items()),
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _made(about: Mapping[str, Any]) -> str:
    bases = [f"{each['name']} at {each['input_size'][0]}×{each['input_size'][1]}" for each in about["bases"]]
    return f"a head of kind {about['kind']}" + (f" on {', '.join(bases)}" if bases else "")


def _abstention(about: Mapping[str, Any]) -> str:
    if about["threshold"] is not None:
        return (
            f"`use.py` answers from a probability of {about['threshold']:.3f} on (`threshold` in `model.json`), for an accuracy of "
            f"{about['min_accuracy']:g} as validation shows it."
        )
    told = [f"{accuracy} from a probability of {at:.3f} on" for accuracy, at in about["thresholds"].items()]
    shown = f" Validation shows an accuracy of {', '.join(told)}." if told else ""
    return f"It always answers. Set `threshold` in `model.json`, and `use.py` keeps unsure answers to itself.{shown}"


def _rows(metrics: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for split in ("validation", "test") for name in metrics.get(split, {}).get("scores", {}))
    return [
        f"| {name.replace('_', ' ')} | {' | '.join(_score(metrics, split, name) for split in ('validation', 'test'))} |"
        for name in names
    ]


def _score(metrics: Mapping[str, Any], split: str, name: str) -> str:
    found = metrics.get(split, {}).get("scores", {}).get(name)
    if found is None:
        return "–"
    interval = found["interval"]
    return f"{found['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _agreement(about: Mapping[str, Any]) -> str:
    found = about["agreement"]
    if not found:
        return "The photos were not there when it was exported, so it was not compared with `headstart predict`."
    return (
        f"On {found['images']} validation images, read from their files at their full size, its probabilities differ from those of "
        f"`headstart predict` by {found['largest_difference']:.2g} at most, and {found['labels_changed']} of the labels are others. It has "
        f"{found['right']} of them right, `headstart predict` {found['right_before']}."
    )
