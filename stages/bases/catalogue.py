"""The table of bases: every constructor of ``keras.applications``, known without importing Keras.

A test compares it with the installed Keras, constructor by constructor.
"""

from typing import NamedTuple


class Base(NamedTuple):
    """One constructor: the module with its ``preprocess_input``, its last layer without the top, and the style
    of its preprocessing (caffe: BGR less the ImageNet mean; tf: to -1…1; torch: mean and deviation; none: the base rescales
    inside).
    """

    module: str
    last_layer: str
    preprocess: str


BASES = {
    "ConvNeXtBase": Base("convnext", "layer_normalization", "none"),
    "ConvNeXtLarge": Base("convnext", "layer_normalization", "none"),
    "ConvNeXtSmall": Base("convnext", "layer_normalization", "none"),
    "ConvNeXtTiny": Base("convnext", "layer_normalization", "none"),
    "ConvNeXtXLarge": Base("convnext", "layer_normalization", "none"),
    "DenseNet121": Base("densenet", "relu", "torch"),
    "DenseNet169": Base("densenet", "relu", "torch"),
    "DenseNet201": Base("densenet", "relu", "torch"),
    "EfficientNetB0": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB1": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB2": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB3": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB4": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB5": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB6": Base("efficientnet", "top_activation", "none"),
    "EfficientNetB7": Base("efficientnet", "top_activation", "none"),
    "EfficientNetV2B0": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2B1": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2B2": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2B3": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2L": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2M": Base("efficientnet_v2", "top_activation", "none"),
    "EfficientNetV2S": Base("efficientnet_v2", "top_activation", "none"),
    "InceptionResNetV2": Base("inception_resnet_v2", "conv_7b_ac", "tf"),
    "InceptionV3": Base("inception_v3", "mixed10", "tf"),
    "MobileNet": Base("mobilenet", "conv_pw_13_relu", "tf"),
    "MobileNetV2": Base("mobilenet_v2", "out_relu", "tf"),
    "MobileNetV3Large": Base("mobilenet_v3", "activation_19", "none"),
    "MobileNetV3Small": Base("mobilenet_v3", "activation_17", "none"),
    "NASNetLarge": Base("nasnet", "activation_259", "tf"),
    "NASNetMobile": Base("nasnet", "activation_187", "tf"),
    "ResNet101": Base("resnet", "conv5_block3_out", "caffe"),
    "ResNet101V2": Base("resnet_v2", "post_relu", "tf"),
    "ResNet152": Base("resnet", "conv5_block3_out", "caffe"),
    "ResNet152V2": Base("resnet_v2", "post_relu", "tf"),
    "ResNet50": Base("resnet", "conv5_block3_out", "caffe"),
    "ResNet50V2": Base("resnet_v2", "post_relu", "tf"),
    "VGG16": Base("vgg16", "block5_pool", "caffe"),
    "VGG19": Base("vgg19", "block5_pool", "caffe"),
    "Xception": Base("xception", "block14_sepconv2_act", "tf"),
}
