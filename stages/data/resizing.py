"""An image of any size → the input size of a base, as ``stages.data.policy.Resize`` says."""

from PIL import Image

from stages.data.interpolation import resampled
from stages.data.policy import SQUASH, Resize

MOST_LONG = 8  # times the input size: how long an image is resized whole before its middle is cut out


def resized(image: Image.Image, size: tuple[int, int], how: Resize = SQUASH) -> Image.Image:
    """A Pillow image at ``size`` = (height, width)."""
    if how.mode == "shortest" or how.crop < 1:
        return _middle(image, size, how)
    if how.mode == "crop":
        # The rules of keras.ops.image.resize with crop_to_aspect_ratio.
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
    if how.filter == "nearest":
        return image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.NEAREST)
    if how.exact:
        return resampled(image, size, box, how.filter, how.antialias)
    return image.resize(size, Image.Resampling[how.filter.upper()], box)  # type: ignore[arg-type]
