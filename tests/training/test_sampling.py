import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgdscope.data.order import example_at
from sgdscope.training.sampling import dropped, microbatch_at, updates_per_epoch
from sgdscope.workloads.base import Resident, Streams, Workload


def text_workload(tokens, unroll=5):
    split = {"token": np.arange(tokens, dtype=np.int32)}
    return Workload(
        name="text", version="1", train=split, validation=split, test=split,
        init=lambda key: jnp.zeros(1), loss=lambda p, state, batch: jnp.zeros(len(batch["token"])),
        score=lambda p, state, batch: jnp.zeros(len(batch["token"])), constant_loss=1.0, constant_score=0.0,
        training_loss=lambda p, carry, batch, keys: (jnp.zeros(len(batch["token"])), carry),
        reader=Streams(unroll, lambda n: jnp.zeros((n, 1))),
    )  # fmt: skip


def drawn(workload, seed, step, number, sizes):
    split = {key: jnp.asarray(array) for key, array in workload.train.items()}
    return microbatch_at(workload, split, jnp.uint32(seed), jnp.int32(step), jnp.int32(number), sizes)


def part(workload, step, sizes, seed=0, number=0):
    batch, keys = drawn(workload, seed, step, number, sizes)
    return np.asarray(batch["token"]), np.asarray(jax.random.key_data(keys))


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tokens", "streams", "unroll"), [(30, 1, 1), (31, 6, 5), (100, 4, 5), (97, 3, 2), (211, 5, 7), (64, 8, 8)]
)
def test_an_epoch_reads_every_token_once_but_for_at_most_one_unroll_a_stream(tokens, streams, unroll):
    workload = text_workload(tokens, unroll)
    size = streams * unroll
    at = jax.jit(lambda step: drawn(workload, 2, step, 0, (size, size))[0]["token"])
    windows = [np.asarray(at(jnp.int32(step))) for step in range(updates_per_epoch(workload, size))]
    read = np.concatenate([window[:, :-1] for window in windows], axis=1)
    assert len(np.unique(read)) == read.size  # none twice
    assert tokens - read.size == dropped(workload, size) <= streams * unroll
    # Each stream is one stretch of the ring, and each window ends with the token that follows it.
    assert (np.diff(read, axis=1) % tokens == 1).all() or read.shape[1] == 1
    for window in windows:
        assert ((window[:, 1:] - window[:, :-1]) % tokens == 1 % tokens).all()


def test_seed_and_epoch_move_the_cut_uniformly():
    workload = text_workload(100)
    sizes, epoch = (10, 10), updates_per_epoch(text_workload(100), 10)
    at = lambda seed, step: drawn(workload, seed, step, 0, sizes)[0]["token"][0, 0]
    seeds, steps = jnp.arange(500, dtype=jnp.uint32), jnp.arange(4, dtype=jnp.int32) * epoch
    cuts = np.asarray(jax.vmap(lambda seed: jax.vmap(lambda step: at(seed, step))(steps))(seeds))
    counts = np.bincount(cuts.ravel(), minlength=100)
    assert ((counts - 20) ** 2 / 20).sum() < 149  # chi-square with 99 degrees of freedom at .999
    assert abs(np.corrcoef(cuts[:, 0], cuts[:, 1])[0, 1]) < 0.15


# ── Parts of a batch ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", [0, 3, 17])
def test_the_parts_of_a_batch_of_streams_are_the_batch(step):
    workload = text_workload(200)
    whole, keys = part(workload, step, (40, 40), seed=3)
    parts = [part(workload, step, (40, 10), seed=3, number=i) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate([tokens for tokens, _ in parts]), whole)
    np.testing.assert_array_equal(np.concatenate([key for _, key in parts]), keys)
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_the_parts_of_a_batch_of_examples_are_the_batch_with_its_augmentation_and_keys():
    split = {"x": np.arange(50, dtype=np.float32)}
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split,
        init=lambda key: jnp.zeros(1), loss=lambda p, state, batch: batch["x"],
        score=lambda p, state, batch: batch["x"],
        constant_loss=1.0, constant_score=0.0, training_loss=lambda p, state, batch, keys: (batch["x"], state),
        reader=Resident(lambda key, example: {"x": example["x"] + jax.random.uniform(key)}),
    )  # fmt: skip
    draw = lambda number, size: drawn(workload, 1, 7, number, (12, size))
    whole, keys = draw(0, 12)
    parts = [draw(i, 4) for i in range(3)]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch, _ in parts]), whole["x"])
    data = [np.asarray(jax.random.key_data(k)) for k in (keys, *(k for _, k in parts))]
    np.testing.assert_array_equal(np.concatenate(data[1:]), data[0])
    index = np.asarray(example_at(jnp.uint32(1), jnp.arange(84, 96, dtype=jnp.uint32), 50))
    shift = np.asarray(whole["x"]) - index
    assert ((shift >= 0) & (shift < 1)).all()
    assert len(np.unique(shift.round(5))) == 12
