"""Images in files: decoded, cut to a square and scaled.

JPEGs are decoded by simplejpeg and scaled by OpenCV, in half of Pillow's time (``benchmarks/pictures.py``). All else,
such as a PNG or a damaged file, is left to Pillow, which also says what is wrong.

Nothing here imports JAX: it runs in processes that only read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from sgdscope.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# Szegedy et al. (2015), arXiv 1409.4842, section 6: pieces of 8 to 100 % of the area, with sides of ratio 3/4 to 4/3.
SMALLEST_AREA = 0.08
WIDEST = 4 / 3
# A piece that does not fit is drawn again; torchvision.transforms.RandomResizedCrop gives up after as many.
TRIES = 10
# Evaluation: the short side to 256 for a square of 224, as in arXiv 1706.02677, section 5.1, and at other sizes alike.
SHORT_SIDE = 256 / 224

FORMATS = ("JPEG", "PNG")


def need_libraries() -> None:
    """Refuse to go on where a library that reads images is not installed."""
    for module, name in (("PIL", "Pillow"), ("simplejpeg", "simplejpeg"), ("cv2", "OpenCV")):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"images need {name}; the extra `imagenet` installs it, in a clone `pip install '.[imagenet]'`."
            )


def libraries() -> str:
    """Return the versions of what pixels depend on."""
    import cv2
    import PIL
    import simplejpeg

    return f"simplejpeg {simplejpeg.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"


def labelled_square(side: int, path: str, label: int, visit: tuple[int, int, int] | None) -> dict[str, np.ndarray]:
    """Return what a network is given of an image: at a visit (seed, epoch, index) of training, or in evaluation."""
    square = centre_square(path, side) if visit is None else random_square(path, side, *visit)
    return {"picture": square, "label": np.asarray(label, np.uint16)}


def random_square(path: Path | str, side: int, seed: int, epoch: int, index: int) -> np.ndarray:
    """Return a random piece of an image, scaled to a square, and mirrored in half the cases: uint8 (side, side, 3).

    The piece's area and the logarithm of its sides' ratio are uniform, and so is its place. What is drawn is a
    function of (seed, epoch, index) alone, from a Philox generator of that key.

    Args:
        path: of the image.
        side: of the square, in pixels.
        seed: the trial's.
        epoch: of the visit.
        index: of the example.

    Raises:
        InputError: where the file cannot be read.

    Sources: Szegedy et al. (2015), arXiv 1409.4842, section 6; Salmon et al. (2011), "Parallel random numbers: as easy
    as 1, 2, 3", for the generator.
    """
    bits = np.random.Philox(key=seed | epoch << 32 | index << 64)

    def uniform() -> float:
        return float((int(bits.random_raw()) >> 11) * 2.0**-53)

    file = _File(path)
    mirrored = uniform() < 0.5
    left, top, width, height = piece(file.width, file.height, uniform)
    pixels = file.decoded(file.width * side / width, file.height * side / height)
    x, y = pixels.shape[1] / file.width, pixels.shape[0] / file.height
    cut = pixels[round(top * y) : round((top + height) * y), round(left * x) : round((left + width) * x)]
    square = _scaled(cut, side, side)
    return _mirrored(square) if mirrored else square


def centre_square(path: Path | str, side: int) -> np.ndarray:
    """Return the centre of an image whose short side was scaled to 256/224 of the square's: uint8 (side, side, 3).

    Raises:
        InputError: where the file cannot be read.
    """
    file = _File(path)
    short = round(side * SHORT_SIDE)
    width, height = (int(short * length / min(file.width, file.height)) for length in (file.width, file.height))
    scaled = _scaled(file.decoded(width, height), width, height)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return scaled[top : top + side, left : left + side]


def piece(width: int, height: int, uniform: Callable[[], float]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a random piece of an image.

    Where none has fitted it is the largest of the centre whose sides' ratio is allowed.

    >>> piece(100, 100, lambda: 0.5), piece(100, 50, lambda: 0.5)
    ((14, 14, 73, 73), (16, 0, 67, 50))
    """
    for _ in range(TRIES):
        area = width * height * (SMALLEST_AREA + (1 - SMALLEST_AREA) * uniform())
        ratio = WIDEST ** (2 * uniform() - 1)
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return int(uniform() * (width - wide + 1)), int(uniform() * (height - high + 1)), wide, high
    wide, high = min(width, round(height * WIDEST)), min(height, round(width * WIDEST))
    return (width - wide) // 2, (height - high) // 2, wide, high


def looked_at(path: str) -> tuple[int, str | None]:
    """Return the first eight bytes of a file's SHA-256, and why it is no image that can be read where it is none.

    All of it is decoded. ImageNet itself has a PNG under the name of a JPEG and JPEGs in CMYK; both can be read.
    """
    try:
        with Path(path).open("rb") as file:
            digest = int.from_bytes(hashlib.file_digest(file, "sha256").digest()[:8], "big")
    except OSError as error:
        return 0, error.strerror or "it cannot be read"
    return digest, _fault(path)


def _fault(path: str) -> str | None:
    try:
        _by_pillow(path)
    except _UnreadableError as error:
        return str(error)
    return None


class _UnreadableError(Exception):
    """A file is no image that can be read; the text says why."""


def _by_pillow(file: str | io.BytesIO) -> Image:
    """Return a whole image in red, green and blue."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                image.load()
                if image.mode.startswith(("I", "F")):
                    raise _UnreadableError("of more than 8 bits a channel")
                return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise _UnreadableError("no JPEG") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _UnreadableError(f"of more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of a file that is cut short or garbled
        raise _UnreadableError(getattr(error, "strerror", None) or "damaged") from error


class _File:
    """A file in memory, and the size of its image."""

    def __init__(self, path: Path | str) -> None:
        import simplejpeg

        self._path = path
        try:
            self._content = np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from error
        try:
            self.height, self.width, *_ = simplejpeg.decode_jpeg_header(self._content)
        except ValueError:
            self.width, self.height = self._by_pillow().size

    def decoded(self, width: float, height: float) -> np.ndarray:
        """Return the pixels, uint8 of shape (at least ``height``, at least ``width``, 3), or all where they are fewer.

        A JPEG is decoded at the smallest number of eighths, up to four, that is enough: that averages over pixels which
        scaling would leave out, and takes less time.
        """
        import simplejpeg

        least = {"min_width": min(math.ceil(width), self.width), "min_height": min(math.ceil(height), self.height)}
        try:
            pixels: np.ndarray = simplejpeg.decode_jpeg(self._content, **least, min_factor=2)
        except ValueError:  # no JPEG, or damaged, or only said to be: Pillow decides
            pixels = np.asarray(self._by_pillow())
        return pixels

    def _by_pillow(self) -> Image:
        try:
            return _by_pillow(io.BytesIO(self._content.tobytes()))
        except _UnreadableError as error:
            raise InputError(f"{self._path} cannot be read ({error}).") from error


def _scaled(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return pixels scaled bilinearly."""
    cv2 = _opencv()
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return pixels with left and right exchanged, which costs numpy as much as scaling does."""
    return np.asarray(_opencv().flip(pixels, 1))


@cache
def _opencv() -> ModuleType:
    """Return OpenCV, which is to use one thread: there is a process for each core."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
