"""What stands between an image file and the pixels that a base sees, in words: they are part of every base key.

``stages.data.images`` does what they say. A change of one of them extracts everybody's images again.
"""

from typing import Literal, NamedTuple

EXACT = "pillow-1: exif applied, alpha over white, first frame, 16-bit scaled to 8, RGB"
DECODE = {"exact": EXACT, "scaled": f"{EXACT}; JPEG scaled by libjpeg to at least the input size"}


class Resize(NamedTuple):
    """How an image comes to the input size, (height, width).

    ``squash`` does not keep the aspect ratio, ``shortest`` does; both resize until the input size is the fraction ``crop`` of the
    sides, or of the shorter one, and cut the middle out, by the rules of torchvision. ``crop`` as a mode cuts the largest window
    of the input's aspect ratio out of the middle, and resizes that; ``stretch`` resizes all of the image: both as Keras does.
    Without ``antialias``, each new pixel is interpolated between its neighbours alone.
    """

    mode: Literal["squash", "shortest", "crop", "stretch"] = "squash"
    crop: float = 1.0
    filter: str = "bilinear"
    antialias: bool = True

    @property
    def exact(self) -> bool:
        """Whether pixels are rounded once, at the end, and not between rows and columns too, as Pillow does."""
        return self.mode in ("crop", "stretch") or not self.antialias

    @property
    def words(self) -> str:
        """What stands in the base key."""
        by = "rounded once," if self.exact else "pillow"
        how = f"{by} {self.filter} {'antialiased' if self.antialias else 'not antialiased'} to (height, width)"
        cut = "" if self.crop == 1 else f", the middle {self.crop:.6g} of it"
        return {
            "squash": f"{how}, aspect ratio not kept{cut}",
            "shortest": f"{how}, on the shorter side as torchvision rounds{cut or ', the middle of it'}",
            "stretch": f"{how}, aspect ratio not kept",
            "crop": f"{how}, of the largest window in the middle that has its aspect ratio, as Keras rounds",
        }[self.mode]


SQUASH = Resize()
