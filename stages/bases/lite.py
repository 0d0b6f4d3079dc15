"""EfficientNet-Lite0, which ``keras.applications`` has not, of layers that Keras has: an EfficientNetB0 without squeeze and excitation,
with ReLU6 in the place of swish, and without the preprocessing inside. Its layers have the names of Keras's EfficientNetB0.

Source: M. Tan, Q. Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019; the Lite variants are
those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from typing import Any

from stages.bases import backend

# Of each stage: blocks, kernel, stride of the first block, channels, and by how much a block widens what it gets.
STAGES = (
    (1, 3, 1, 16, 1),
    (2, 3, 2, 24, 6),
    (2, 5, 2, 40, 6),
    (3, 3, 2, 80, 6),
    (3, 5, 1, 112, 6),
    (4, 5, 2, 192, 6),
    (1, 3, 1, 320, 6),
)
STEM, TOP = 32, 1280
EPSILON = 1e-3


def efficientnet_lite0(input_shape: tuple[int, int, int]) -> Any:
    """The Keras model without its classifier: (n, height, width, 3) from -1 to 1 → (n, height / 32, width / 32, 1280)."""
    keras = backend.load_keras()
    layers = keras.layers

    def normalised(x: Any, name: str, activation: str | None = None) -> Any:
        x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}bn")(x)
        return x if activation is None else layers.ReLU(6.0, name=f"{name}{activation}")(x)

    def block(x: Any, name: str, kernel: int, stride: int, channels: int, widen: int) -> Any:
        inputs = x
        if widen != 1:
            x = layers.Conv2D(widen * x.shape[-1], 1, use_bias=False, name=f"{name}expand_conv")(x)
            x = normalised(x, f"{name}expand_", "activation")
        x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}dwconv")(x)
        x = normalised(x, name, "activation")
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}project_conv")(x)
        x = normalised(x, f"{name}project_")
        return layers.Add(name=f"{name}add")([x, inputs]) if stride == 1 and inputs.shape[-1] == channels else x

    images = keras.Input(input_shape)
    x = layers.Conv2D(STEM, 3, 2, padding="same", use_bias=False, name="stem_conv")(images)
    x = normalised(x, "stem_", "activation")
    for stage, (blocks, kernel, stride, channels, widen) in enumerate(STAGES, 1):
        for i in range(blocks):
            x = block(x, f"block{stage}{chr(ord('a') + i)}_", kernel, stride if i == 0 else 1, channels, widen)
    x = layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(x)
    x = normalised(x, "top_", "activation")
    return keras.Model(images, x, name="efficientnet_lite0")
