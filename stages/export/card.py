"""What lies beside an exported model, for people: its model card, and a short script that uses it.

How photos are read for it stands in templates/photos.py, which is copied as it is.

Of model cards: M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The packages that it needs, beside NumPy and Pillow; what is imported; how the model is loaded; how it is called.
_USES = {
    "keras": (
        "tensorflow",
        "import keras\nimport numpy as np\n",
        'model = keras.saving.load_model(HOME / "model.keras", safe_mode=True)',
        "np.asarray(model(image))[0]",
    ),
    "saved_model": (
        "tensorflow",
        "import tensorflow as tf\n",
        'model = tf.saved_model.load(HOME / "saved_model")',
        "model.serve(image).numpy()[0]",
    ),
    "litert": (
        "ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter\n",
        'model = Interpreter(str(HOME / "model.tflite")).get_signature_runner()',
        "next(iter(model(images=image).values()))[0]",
    ),
    "onnx": (
        "onnxruntime",
        "import onnxruntime\n",
        'model = onnxruntime.InferenceSession(HOME / "model.onnx")',
        'model.run(None, {"images": image})[0][0]',
    ),
    "openvino": (
        "openvino",
        "import openvino\n",
        'model = openvino.Core().compile_model(HOME / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        "model(image)[0][0]",
    ),
}
_USE = '''"""Label image files: python use.py photo.jpg (pip install numpy pillow {packages})"""
{imports}from photos import HOME, photos, tell

{load}
for path, image in photos():
    tell(path, {call})
'''
_TEMPLATES = Path(__file__).parent / "templates"
_CARD = _TEMPLATES / "card.md"
PHOTOS = _TEMPLATES / "photos.py"


def use_of(to: str) -> str:
    """The text of ``use.py`` for a format."""
    packages, imports, load, call = _USES[to]
    return _USE.format(packages=packages, imports=imports, load=load, call=call)


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
