"""The packaged MobileNetV2 against torchvision's, as PyTorch computes it. The network stands here, as torchvision is no dependency.

M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks" (2018); its layers and their names are those of
https://github.com/pytorch/vision/blob/v0.8.1/torchvision/models/mobilenet.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stages.bases.frozen import FrozenBase
from stages.bases.packaged import source
from stages.bases.quantise import QuantisedBase
from stages.bases.spec import BaseSpec
from stages.bases.torchfile import read_tensors
from stages.bases.weights import Weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Expansion, channels, repeats and stride of each stage.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6())


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [conv(inputs, hidden, 1)] if expansion != 1 else []
        layers.append(conv(hidden, hidden, stride=stride, groups=hidden))
        self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 32, stride=2)]
        inputs = 32
        for expansion, outputs, repeats, stride in STAGES:
            for i in range(repeats):
                layers.append(Block(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, conv(inputs, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    found = MobileNetV2().eval()
    found.load_state_dict(torch.load(source("MobileNetV2"), weights_only=True))
    return found


def photo(height: int, width: int) -> np.ndarray:
    """Edges, slopes and grain, as photographs have them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / (5 + c) + c) + 60 * np.cos(y / (9 - c)) for c in range(3)]
    image = np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))
    image[height // 3 : height // 2, width // 4 :] += 90
    return np.clip(image, 0, 255).astype(np.uint8)[None]


def test_the_reader_gives_what_pytorch_reads(network: MobileNetV2) -> None:
    found = read_tensors(source("MobileNetV2"))
    expected = network.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("engine", ["keras", "openvino"])
@pytest.mark.parametrize("size", [(224, 224), (160, 160), (97, 130), (32, 32), (33, 33), (64, 47)])
def test_features_are_those_of_pytorch(
    network: MobileNetV2, tmp_path: Path, size: tuple[int, int], engine: str
) -> None:
    spec = BaseSpec.model_validate(
        {"name": "MobileNetV2", "weights": "packaged", "input_size": list(size), "engine": engine}
        | {"precision": "float32", "batch_size": 1}
    )
    image = photo(*size)
    pixels = (image / 255 - np.array(MEAN)) / np.array(STD)
    with torch.no_grad():
        expected = network(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = FrozenBase(spec, Weights(spec, tmp_path))(image)["out_relu"]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert expected.max() > 1  # it sees something


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"precision": "bfloat16"}, 0.15),
        ({"engine": "openvino", "precision": "bfloat16"}, 0.15),
        ({"engine": "openvino", "precision": "int8"}, 0.5),
    ],
)
def test_lower_precisions_come_near(tmp_path: Path, options: dict[str, str], most: float) -> None:
    spec = BaseSpec.model_validate({"name": "MobileNetV2", "weights": "packaged", "input_size": 96, **options})
    exact = spec.model_copy(update={"engine": "keras", "precision": "float32"})
    image = photo(100, 100)
    crops = [np.ascontiguousarray(image[:, i : 96 + i, i : 96 + i]) for i in range(5)]
    if spec.precision == "int8":
        QuantisedBase(spec, Weights(spec, tmp_path)).make(iter(crops), print)
    found, expected = (FrozenBase(each, Weights(each, tmp_path))(crops[4])["out_relu"] for each in (spec, exact))
    assert 0 < np.linalg.norm(found - expected) < most * np.linalg.norm(expected)
