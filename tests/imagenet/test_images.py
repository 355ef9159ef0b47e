import hashlib
import io
import math

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from scipy import stats

from sgdscope.errors import InputError
from sgdscope.imagenet.images import centre_square, looked_at, piece, random_square


def gradient(width, height):
    """Red grows to the right, green downwards, so that every place can be told by its colour."""
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    red, green = np.meshgrid(x, y)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2).round().astype(np.uint8))


@pytest.fixture
def path(tmp_path):
    gradient(120, 80).save(tmp_path / "a.JPEG", quality=95)
    return tmp_path / "a.JPEG"


# ── Training: a random piece ─────────────────────────────────────────────────────────────────────────────


def test_the_same_visit_is_the_same_square_and_every_other_another(path):
    visits = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 2**32 - 1, 2**31)]
    squares = [random_square(path, 32, *visit) for visit in visits]
    assert all(square.shape == (32, 32, 3) and square.dtype == np.uint8 for square in squares)
    np.testing.assert_array_equal(squares[0], random_square(path, 32, 0, 0, 0))
    assert len({square.tobytes() for square in squares}) == len(visits)


def test_a_square_is_the_piece_that_was_drawn_scaled_and_mirrored(path):
    mirrored = 0
    for index in range(40):
        square = random_square(path, 32, 5, 0, index).astype(float)
        raw = np.random.Philox(key=5 | index << 64).random_raw(50)
        draws = iter((raw >> np.uint64(11)) * 2.0**-53)
        flipped = next(draws) < 0.5
        left, top, width, height = piece(120, 80, lambda draws=draws: next(draws))
        mirrored += flipped
        # The colours at the middle of each of the 32 × 32 parts of the piece.
        red = (left + (np.arange(32) + 0.5) * width / 32 - 0.5) * 255 / 119
        green = (top + (np.arange(32) + 0.5) * height / 32 - 0.5) * 255 / 79
        inner = slice(2, -2)  # at the edge a scaled image leans inwards
        seen = square[:, ::-1] if flipped else square
        assert np.abs(seen[inner, inner, 0] - red[None, inner]).max() < 6
        assert np.abs(seen[inner, inner, 1] - green[inner, None]).max() < 6
    assert 10 < mirrored < 30


def test_the_piece_has_the_published_distribution():
    rng = np.random.default_rng(0)
    pieces = np.array([piece(1000, 1000, rng.random) for _ in range(4000)])
    left, top, wide, high = pieces.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + wide <= 1000).all()
    assert (top + high <= 1000).all()
    # Pieces of up to 3/4 of the area always fit, and their area and log ratio are uniform.
    area = wide * high / 1e6
    small = area < 0.7
    assert stats.kstest(area[small], stats.uniform(0.08, 0.62).cdf).pvalue > 1e-3
    log_ratio = np.log(wide / high)[small] / math.log(4 / 3)
    assert stats.kstest(log_ratio, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest((left / (1001 - wide))[small], stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert stats.kstest((top / (1001 - high))[small], stats.uniform(0, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000)])
def test_where_no_piece_fits_it_is_the_largest_of_the_centre(size):
    long, short = max(size), min(size)
    expected = ((long - 13) // 2, 0, 13, short) if size[0] == long else (0, (long - 13) // 2, short, 13)
    assert piece(*size, lambda: 0.99) == expected


def test_a_large_picture_is_decoded_smaller_and_looks_the_same(tmp_path, monkeypatch):
    gradient(1200, 800).save(tmp_path / "large.JPEG", quality=95)
    small = random_square(tmp_path / "large.JPEG", 32, 0, 0, 0).astype(float)
    decode, decoded = simplejpeg.decode_jpeg, []

    def decode_all(content, min_width, min_height, min_factor):
        decoded.append(decode(content, min_width=min_width, min_height=min_height, min_factor=min_factor).shape)
        return decode(content)

    monkeypatch.setattr("simplejpeg.decode_jpeg", decode_all)
    whole = random_square(tmp_path / "large.JPEG", 32, 0, 0, 0).astype(float)
    assert decoded == [(100, 150, 3)]
    assert 0 < np.abs(small - whole).max() < 4


# ── Evaluation: the centre ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (100, 90)])
def test_the_centre_square_is_cut_from_the_picture_scaled_to_a_short_side_of_256(tmp_path, size):
    gradient(*size).save(tmp_path / "b.JPEG", quality=95)
    with Image.open(tmp_path / "b.JPEG") as image:
        scale = 256 / min(size)
        scaled = image.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BILINEAR)
    left, top = (round((length - 224) / 2) for length in scaled.size)
    expected = np.asarray(scaled)[top : top + 224, left : left + 224]
    # Another library's fixed point, and where the image becomes smaller its wider kernel: no matter on a gradient.
    found = centre_square(tmp_path / "b.JPEG", 224)
    assert found.shape == (224, 224, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_the_centre_square_of_another_size_keeps_the_share(path):
    square = centre_square(path, 56).astype(float)
    assert square.shape == (56, 56, 3)
    # 7/8 of the short side of 80 are 70 pixels, from 5 to 75.
    assert abs(square[0, :, 1].mean() - 5.5 * 255 / 79) < 3
    assert abs(square[-1, :, 1].mean() - 73.5 * 255 / 79) < 3


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_what_imagenet_has_beside_plain_jpegs_can_be_read(tmp_path, mode, form):
    image = gradient(70, 60)
    image = image.quantize(dither=Image.Dither.NONE) if (mode, form) == ("CMYK", "PNG") else image.convert(mode)
    image.save(tmp_path / "c.JPEG", form)
    assert looked_at(str(tmp_path / "c.JPEG"))[1] is None
    square = centre_square(tmp_path / "c.JPEG", 32).astype(float)
    expected = np.asarray(image.convert("RGB").resize((42, 36))).astype(float)[2:34, 5:37]
    assert np.abs(square - expected).mean() < 8


def test_a_file_is_known_by_its_hash_and_damage_is_told(path, tmp_path):
    content = path.read_bytes()
    assert looked_at(str(path)) == (int(hashlib.sha256(content).hexdigest()[:16], 16), None)
    buffer = io.BytesIO()
    gradient(30, 30).save(buffer, "GIF")
    for name, damaged in (
        ("cut", content[: len(content) // 2]),
        ("text", b"no picture"),
        ("empty", b""),
        ("gif", buffer.getvalue()),
    ):
        (tmp_path / name).write_bytes(damaged)
        assert looked_at(str(tmp_path / name))[1] == ("damaged" if name == "cut" else "no JPEG")
        with pytest.raises(InputError, match=rf"{name}.* cannot be read"):
            random_square(tmp_path / name, 16, 0, 0, 0)
    assert looked_at(str(tmp_path / "none")) == (0, "No such file or directory")
    with pytest.raises(InputError, match=r"none cannot be read \(No such file or directory\)"):
        centre_square(tmp_path / "none", 16)
