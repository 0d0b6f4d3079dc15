"""The packaged EfficientNetLite0 against the same network in PyTorch, which stands here, as the package that has it is no dependency.

Its layers and their names are those of https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch; where it pads for images of 224×224
alone, this one pads as TensorFlow does, for any size.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.bases.frozen import FrozenBase
from stages.bases.packaged import source
from stages.bases.spec import BaseSpec
from stages.bases.torchfile import read_tensors
from stages.bases.weights import Weights

# Blocks, kernel, stride, channels and expansion of each stage.
STAGES = [(1, 3, 1, 16, 1), (2, 3, 2, 24, 6), (2, 5, 2, 40, 6), (3, 3, 2, 80, 6), (3, 5, 1, 112, 6), (4, 5, 2, 192, 6), (1, 3, 1, 320, 6)]  # fmt: skip


class Same(nn.Conv2d):
    """Padded as TensorFlow's SAME: what is left over stands below and on the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step, reach = self.stride[0], self.kernel_size[0]
        height, width = (max((-(-n // step) - 1) * step + reach - n, 0) for n in x.shape[2:])
        return super().forward(functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, inputs: int, kernel: int, stride: int, outputs: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion != 1:
            self._expand_conv, self._bn0 = Same(inputs, hidden, 1, bias=False), norm(hidden)
        self._depthwise_conv = Same(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._project_conv, self._bn2 = Same(hidden, outputs, 1, bias=False), norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = x
        if hasattr(self, "_expand_conv"):
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.residual else x


class EfficientNetLite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), norm(32)
        blocks, inputs = [], 32
        for repeats, kernel, stride, outputs, expansion in STAGES:
            for i in range(repeats):
                blocks.append(Block(inputs, kernel, stride if i == 0 else 1, outputs, expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Same(320, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x)))


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    found = EfficientNetLite0().eval()
    found.load_state_dict(torch.load(source("EfficientNetLite0"), weights_only=True))
    return found


def test_the_reader_gives_what_pytorch_reads(network: EfficientNetLite0) -> None:
    found, expected = read_tensors(source("EfficientNetLite0")), network.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("engine", ["keras", "openvino"])
@pytest.mark.parametrize("size", [(224, 224), (160, 160), (97, 130), (33, 33)])
def test_features_are_those_of_pytorch(
    network: EfficientNetLite0, tmp_path: Path, size: tuple[int, int], engine: str
) -> None:
    spec = BaseSpec.model_validate(
        {"name": "EfficientNetLite0", "input_size": list(size), "engine": engine}
        | {"precision": "float32", "batch_size": 1}
    )
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [128 + 60 * np.sin(x / (5 + c) + c) + 60 * np.cos(y / (9 - c)) for c in range(3)]
    image = (np.stack(waves, -1) + np.random.default_rng(0).normal(0, 8, (*size, 3))).clip(0, 255).astype(np.uint8)
    pixels = torch.tensor((image[None] - 127.0) / 128, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(pixels).permute(0, 2, 3, 1).numpy()
    (found,) = FrozenBase(spec, Weights(spec, tmp_path))(image[None]).values()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert expected.max() > 1  # it sees something
