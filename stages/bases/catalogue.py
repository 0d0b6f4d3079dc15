"""The table of bases: every constructor of ``keras.applications``, and one that is built here, known without importing Keras.

A test compares it with the installed Keras, constructor by constructor.
"""

from typing import NamedTuple


class Base(NamedTuple):
    """The constructors of one module: that with their ``preprocess_input``, their last layer without the top, and the style
    of their preprocessing (caffe: BGR less the ImageNet mean; tf: to -1…1; torch: mean and deviation; none: the base rescales
    inside; lite: less 127, divided by 128).
    """

    module: str
    last_layer: str
    preprocess: str


_CONSTRUCTORS = {
    Base(
        "convnext", "layer_normalization", "none"
    ): "ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge",
    Base("densenet", "relu", "torch"): "DenseNet121 DenseNet169 DenseNet201",
    Base("efficientnet", "top_activation", "none"): "EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 "
    "EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7",
    Base("efficientnet_v2", "top_activation", "none"): "EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 "
    "EfficientNetV2B3 EfficientNetV2S EfficientNetV2M EfficientNetV2L",
    Base("inception_resnet_v2", "conv_7b_ac", "tf"): "InceptionResNetV2",
    Base("inception_v3", "mixed10", "tf"): "InceptionV3",
    Base("mobilenet", "conv_pw_13_relu", "tf"): "MobileNet",
    Base("mobilenet_v2", "out_relu", "tf"): "MobileNetV2",
    Base("mobilenet_v3", "activation_17", "none"): "MobileNetV3Small",
    Base("mobilenet_v3", "activation_19", "none"): "MobileNetV3Large",
    Base("nasnet", "activation_187", "tf"): "NASNetMobile",
    Base("nasnet", "activation_259", "tf"): "NASNetLarge",
    Base("resnet", "conv5_block3_out", "caffe"): "ResNet50 ResNet101 ResNet152",
    Base("resnet_v2", "post_relu", "tf"): "ResNet50V2 ResNet101V2 ResNet152V2",
    Base("vgg16", "block5_pool", "caffe"): "VGG16",
    Base("vgg19", "block5_pool", "caffe"): "VGG19",
    Base("xception", "block14_sepconv2_act", "tf"): "Xception",
}
# Built in ``stages.bases.lite``; Keras has no weights of it.
OURS = {"EfficientNetLite0": Base("efficientnet_lite", "top_activation", "lite")}
BASES = {name: base for base, names in _CONSTRUCTORS.items() for name in names.split()} | OURS
