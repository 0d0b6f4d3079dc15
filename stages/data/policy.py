"""What stands between an image file and the pixels that a base sees, in words: they are part of every base key.

``stages.data.images`` does what they say. A change of one of them extracts everybody's images again.
"""

EXACT = "pillow-1: exif applied, alpha over white, first frame, 16-bit scaled to 8, RGB"
DECODE = {"exact": EXACT, "scaled": f"{EXACT}; JPEG scaled by libjpeg to at least the input size"}
RESIZE = "pillow bilinear antialiased to (height, width), aspect ratio not kept"
