"""The formats of phones, HEIC and AVIF, which not every installation can read: how they are told, and what is said without them.

Light, as a no-op asks whether an image that was skipped for want of a package can be read by now.
"""

from importlib.util import find_spec

NO_HEIC = 'HEIC, which needs the package pi-heif; run .venv/bin/python -m pip install -e ".[heic]"'
NO_AVIF = "AVIF, which this build of Pillow cannot read; run .venv/bin/python -m pip install --upgrade pillow"
UNKNOWN = "not an image that can be read"

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF = {b"avif", b"avis"}


def brands_of(data: bytes) -> list[bytes]:
    """The brands of a file of the ISO media format, the major one first; none for other files."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), 512)
    return [data[8:12], *(data[i : i + 4] for i in range(16, end - 3, 4))]


def is_heic(data: bytes) -> bool:
    """Whether a file says that it is HEIC, or of the family's common brand and not AVIF."""
    brands = brands_of(data)
    return not _AVIF & set(brands) and bool(_HEIC & set(brands) or brands[:1] in ([b"mif1"], [b"msf1"]))


def is_avif(data: bytes) -> bool:
    """Whether a file says that it is AVIF."""
    return bool(_AVIF & set(brands_of(data)))


def curable(reason: str) -> bool:
    """Whether an image that was skipped for this reason may be read now: a package was installed since, or headstart is a newer one."""
    if reason == NO_HEIC:
        return find_spec("pi_heif") is not None
    if reason == NO_AVIF:
        from PIL import features

        return bool(features.check("avif"))
    # What versions said that knew neither format.
    return reason.startswith(f"{UNKNOWN} (it begins with") and reason.endswith("ftyp')")
