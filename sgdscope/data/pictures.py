"""Pictures in files: decoded, cut to a square and scaled, by Pillow, which decodes JPEG with libjpeg-turbo.

Nothing here imports JAX: it runs in processes that only read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

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


def pillow() -> ModuleType:
    """Return Pillow's module of pictures.

    Raises:
        InputError: where it is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise InputError("pictures are read by Pillow; `pip install 'sgdscope[imagenet]'` installs it.") from None
    return Image


def labelled_square(side: int, path: str, label: int, visit: tuple[int, int, int] | None) -> dict[str, np.ndarray]:
    """Return what a network is given of a picture: at a visit (seed, epoch, index) of training, or in evaluation."""
    square = centre_square(Path(path), side) if visit is None else random_square(Path(path), side, *visit)
    return {"picture": square, "label": np.asarray(label, np.uint16)}


def random_square(path: Path, side: int, seed: int, epoch: int, index: int) -> np.ndarray:
    """Return a random piece of a picture, scaled to a square, and mirrored in half the cases: uint8 (side, side, 3).

    The piece's area and the logarithm of its sides' ratio are uniform, and so is its place. What is drawn is a
    function of (seed, epoch, index) alone, from a Philox generator of that key.

    Args:
        path: of the picture.
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

    with _opened(path) as image:
        mirrored = uniform() < 0.5
        full = image.size
        left, top, width, height = piece(full[0], full[1], uniform)
        right, bottom = left + width, top + height
        # A large picture is decoded at a half, a quarter or an eighth, as long as the piece is not enlarged by it.
        image.draft("RGB", (math.ceil(full[0] * side / width), math.ceil(full[1] * side / height)))
        x, y = image.width / full[0], image.height / full[1]
        box = (left * x, top * y, right * x, bottom * y)
        pixels = np.asarray(_rgb(image, path).resize((side, side), pillow().Resampling.BILINEAR, box))
        return pixels[:, ::-1] if mirrored else pixels


def centre_square(path: Path, side: int) -> np.ndarray:
    """Return the centre of a picture whose short side was scaled to 256/224 of the square's: uint8 (side, side, 3).

    Raises:
        InputError: where the file cannot be read.
    """
    with _opened(path) as image:
        short = round(side * SHORT_SIDE)
        width, height = (int(short * length / min(image.size)) for length in image.size)
        image.draft("RGB", (width, height))
        scaled = _rgb(image, path).resize((width, height), pillow().Resampling.BILINEAR)
        left, top = round((width - side) / 2), round((height - side) / 2)
        return np.asarray(scaled.crop((left, top, left + side, top + side)))


def piece(width: int, height: int, uniform: Callable[[], float]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a random piece of a picture.

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
    """Return the first eight bytes of a file's SHA-256, and why it is no picture that can be read where it is none.

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
        with pillow().open(path, formats=("JPEG", "PNG")) as image:
            image.load()
    except pillow().UnidentifiedImageError:
        return "no JPEG"
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of a file that is cut short or garbled
        return getattr(error, "strerror", None) or "damaged"
    return None


def _opened(path: Path) -> Any:
    try:
        return pillow().open(path, formats=("JPEG", "PNG"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or 'it is no JPEG'}).") from error


def _rgb(image: Image, path: Path) -> Image:
    try:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read (it is damaged).") from error
