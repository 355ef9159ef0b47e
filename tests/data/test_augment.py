import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.data.augment import crop_and_flip


def pictures(n):
    rng = np.random.default_rng(0)
    return {
        "picture": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "label": rng.integers(0, 10, n, dtype=np.uint8),
    }


def np_crops(picture):
    """All 81 crops and their mirror images, by where they begin."""
    # Pixel −k is pixel k, and pixel 31 + k is pixel 31 − k.
    mirrored = np.array([*range(4, 0, -1), *range(32), *range(30, 26, -1)])
    padded = picture[mirrored][:, mirrored]
    for row in range(9):
        for column in range(9):
            crop = padded[row : row + 32, column : column + 32]
            yield (row, column, False), crop
            yield (row, column, True), crop[:, ::-1]


def test_every_crop_and_flip_occurs_equally_often_and_is_exact():
    example = {key: jnp.asarray(array[0]) for key, array in pictures(1).items()}
    n = 4050
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(n))
    augmented = jax.jit(jax.vmap(crop_and_flip, in_axes=(0, None)))(keys, example)
    assert (augmented["label"] == example["label"]).all()
    assert augmented["picture"].dtype == jnp.uint8
    place = {crop.tobytes(): where for where, crop in np_crops(np.asarray(example["picture"]))}
    found = Counter(place[crop.tobytes()] for crop in np.asarray(augmented["picture"]))  # a KeyError is no crop at all
    assert len(found) == len(place) == 162
    counts = np.array(list(found.values()))
    chi_square = ((counts - n / 162) ** 2 / (n / 162)).sum()
    assert chi_square < 161 + 4 * np.sqrt(2 * 161)


def test_a_key_decides_the_crop_and_nothing_else_does():
    batch = {key: jnp.asarray(array) for key, array in pictures(4).items()}
    keys = jax.random.split(jax.random.key(3), 4)
    augment = jax.jit(jax.vmap(crop_and_flip))
    together = augment(keys, batch)
    for i in range(4):
        alone = augment(keys[i : i + 1], {key: array[i : i + 1] for key, array in batch.items()})
        np.testing.assert_array_equal(alone["picture"][0], together["picture"][i])
