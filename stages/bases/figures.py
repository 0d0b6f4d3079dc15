"""What the bases of the catalogue are, without building them: their size, parameters and cost.

Computed once with Keras 3.15 by building each without its top at the input size of its weights; a test of the extras builds some
again. ``gflops`` counts the multiplications and additions of convolutions and dense layers each;
``stages.bases.arithmetic`` counts those of other bases.
"""

from typing import NamedTuple

from stages.bases.cuts import float16_bytes


class Figures(NamedTuple):
    """``size`` is the input (height, width), ``features`` the shape of the last layer's output for one image."""

    size: tuple[int, int]
    parameters: int
    features: tuple[int, ...]
    gflops: float | None

    @property
    def kilobytes(self) -> float:
        """Of one image's features as float16, uncompressed."""
        return float16_bytes(self.features) / 1e3


FIGURES = {
    "ConvNeXtTiny": Figures((224, 224), 27_820_128, (7, 7, 768), 8.91),
    "ConvNeXtSmall": Figures((224, 224), 49_454_688, (7, 7, 768), 17.4),
    "ConvNeXtBase": Figures((224, 224), 87_566_464, (7, 7, 1024), 30.7),
    "ConvNeXtLarge": Figures((224, 224), 196_230_336, (7, 7, 1536), 68.7),
    "ConvNeXtXLarge": Figures((224, 224), 348_147_968, (7, 7, 2048), 122),
    "DenseNet121": Figures((224, 224), 7_037_504, (7, 7, 1024), 5.67),
    "DenseNet169": Figures((224, 224), 12_642_880, (7, 7, 1664), 6.72),
    "DenseNet201": Figures((224, 224), 18_321_984, (7, 7, 1920), 8.58),
    "EfficientNetB0": Figures((224, 224), 4_049_571, (7, 7, 1280), 0.769),
    "EfficientNetB1": Figures((240, 240), 6_575_239, (8, 8, 1280), 1.37),
    "EfficientNetB2": Figures((260, 260), 7_768_569, (9, 9, 1408), 1.98),
    "EfficientNetB3": Figures((300, 300), 10_783_535, (10, 10, 1536), 3.65),
    "EfficientNetB4": Figures((380, 380), 17_673_823, (12, 12, 1792), 8.78),
    "EfficientNetB5": Figures((456, 456), 28_513_527, (15, 15, 2048), 20.5),
    "EfficientNetB6": Figures((528, 528), 40_960_143, (17, 17, 2304), 38.1),
    "EfficientNetB7": Figures((600, 600), 64_097_687, (19, 19, 2560), 75.5),
    "EfficientNetLite0": Figures((224, 224), 3_413_024, (7, 7, 1280), 0.768),
    "EfficientNetV2B0": Figures((224, 224), 5_919_312, (7, 7, 1280), 1.43),
    "EfficientNetV2B1": Figures((240, 240), 6_931_124, (8, 8, 1280), 2.39),
    "EfficientNetV2B2": Figures((260, 260), 8_769_374, (9, 9, 1408), 3.39),
    "EfficientNetV2B3": Figures((300, 300), 12_930_622, (10, 10, 1536), 6.02),
    "EfficientNetV2S": Figures((384, 384), 20_331_360, (12, 12, 1280), 16.7),
    "EfficientNetV2M": Figures((480, 480), 53_150_388, (15, 15, 1280), 49.2),
    "EfficientNetV2L": Figures((480, 480), 117_746_848, (15, 15, 1280), 112),
    "InceptionResNetV2": Figures((299, 299), 54_336_736, (8, 8, 1536), 26.3),
    "InceptionV3": Figures((299, 299), 21_802_784, (8, 8, 2048), 11.4),
    "MobileNet": Figures((224, 224), 3_228_864, (7, 7, 1024), 1.14),
    "MobileNetV2": Figures((224, 224), 2_257_984, (7, 7, 1280), 0.599),
    "MobileNetV3Small": Figures((224, 224), 939_120, (7, 7, 576), 0.11),
    "MobileNetV3Large": Figures((224, 224), 2_996_352, (7, 7, 960), 0.428),
    "NASNetMobile": Figures((224, 224), 4_269_716, (7, 7, 1056), 1.13),
    "NASNetLarge": Figures((331, 331), 84_916_818, (11, 11, 4032), 47.6),
    "ResNet50": Figures((224, 224), 23_587_712, (7, 7, 2048), 7.71),
    "ResNet101": Figures((224, 224), 42_658_176, (7, 7, 2048), 15.1),
    "ResNet152": Figures((224, 224), 58_370_944, (7, 7, 2048), 22.6),
    "ResNet50V2": Figures((224, 224), 23_564_800, (7, 7, 2048), 6.96),
    "ResNet101V2": Figures((224, 224), 42_626_560, (7, 7, 2048), 14.4),
    "ResNet152V2": Figures((224, 224), 58_331_648, (7, 7, 2048), 21.8),
    "VGG16": Figures((224, 224), 14_714_688, (7, 7, 512), 30.7),
    "VGG19": Figures((224, 224), 20_024_384, (7, 7, 512), 39),
    "Xception": Figures((299, 299), 20_861_480, (10, 10, 2048), 16.7),
}
