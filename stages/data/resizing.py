"""An image of any size → the input size of a base, as ``stages.data.policy.Resize`` says."""

import numpy as np
from PIL import Image

from stages.data.policy import SQUASH, Resize

MOST_LONG = 8  # times the input size: how long an image is resized whole before its middle is cut out


def resized(image: Image.Image, size: tuple[int, int], how: Resize = SQUASH) -> Image.Image:
    """A Pillow image at ``size`` = (height, width)."""
    if how.mode == "shortest" or how.crop < 1:
        return _middle(image, size, how)
    if how.mode == "crop":
        # The rules of keras.ops.image.resize with crop_to_aspect_ratio, which cuts first.
        wide = max(1, min(image.width, int(image.height * size[1] / size[0])))
        tall = max(1, min(image.height, int(image.width * size[0] / size[1])))
        left, top = (image.width - wide) // 2, (image.height - tall) // 2
        image = image.crop((left, top, left + wide, top + tall))
    return _scaled(image, (size[1], size[0]), (0, 0, *image.size), how)


def _middle(image: Image.Image, size: tuple[int, int], how: Resize) -> Image.Image:
    # torchvision's rules: Resize cuts the longer side off, CenterCrop rounds half to even.
    tall, wide = (int(side / how.crop + 1e-6) for side in size)
    if how.mode == "squash":
        whole = [wide, tall]
    elif tall == wide:
        whole = [int(tall * side / min(image.size)) for side in image.size]
    else:
        ratio = max(tall / image.height, wide / image.width)
        whole = [round(side * ratio) for side in image.size]
    left, top = round((whole[0] - size[1]) / 2), round((whole[1] - size[0]) / 2)
    window = (left, top, left + size[1], top + size[0])
    if max(whole) <= MOST_LONG * max(size):
        return _scaled(image, (whole[0], whole[1]), (0, 0, *image.size), how).crop(window)
    # All of a long strip would take gigabytes. Its middle alone may be rounded differently.
    x, y = image.width / whole[0], image.height / whole[1]
    return _scaled(image, (size[1], size[0]), (left * x, top * y, window[2] * x, window[3] * y), how)


def _scaled(image: Image.Image, size: tuple[int, int], box: tuple[float, ...], how: Resize) -> Image.Image:
    """The part of an image in ``box`` (left, top, right, bottom) at ``size`` = (width, height)."""
    if image.size == size and box == (0, 0, *size):
        return image
    resample = Image.Resampling[how.filter.upper()]
    if how.antialias:
        return image.resize(size, resample, box)  # type: ignore[arg-type]
    if resample == Image.Resampling.NEAREST:
        return image.transform(size, Image.Transform.EXTENT, box, resample)
    return _between(image, size, box)


def _between(image: Image.Image, size: tuple[int, int], box: tuple[float, ...]) -> Image.Image:
    """Bilinear between the four nearest pixels. Pillow's own way rounds down, which makes images darker by half a level."""
    found = np.asarray(image, np.float32)
    for axis, (low, high, new) in ((1, (box[0], box[2], size[0])), (0, (box[1], box[3], size[1]))):
        most = found.shape[axis] - 1
        at = np.clip((np.arange(new) + 0.5) * (high - low) / new + low - 0.5, 0, most).astype(np.float32)
        before = np.floor(at).astype(int)
        share = np.expand_dims(at - before, tuple(i for i in range(found.ndim) if i != axis))
        after = np.minimum(before + 1, most)
        found = found.take(before, axis) * (1 - share) + found.take(after, axis) * share
    return Image.fromarray(np.rint(found).astype(np.uint8))
