import jax
import pytest

from sgdscope.result import Result
from sgdscope.training.jax_setup import REFUSED, CompilationCache, pinned


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_entries_that_were_not_sealed_or_changed_since_are_deleted(tmp_path):
    cache = CompilationCache(tmp_path)
    cache.entries.mkdir(parents=True)
    cache.sums.mkdir(parents=True)
    (cache.entries / "whole").write_bytes(b"program")
    (cache.entries / "changed").write_bytes(b"program")
    cache.seal()
    (cache.entries / "changed").write_bytes(b"progra")  # cut short
    (cache.entries / "unsealed").write_bytes(b"pro")  # its writer was killed
    cache.open()
    assert names(cache.entries) == names(cache.sums) == ["whole"]


def test_a_folder_of_xlas_own_is_left_alone_and_does_not_end_the_cache(tmp_path):
    """XLA keeps there which of a GPU's kernels were fastest."""
    cache = CompilationCache(tmp_path)
    kernels = cache.entries / "xla_gpu_per_fusion_autotune_cache_dir"
    kernels.mkdir(parents=True)
    cache.sums.mkdir(parents=True)
    for name in ("a", "z"):  # before and after it, in whatever order they are listed
        (cache.entries / name).write_bytes(b"program")
    cache.seal()
    cache.open()
    assert names(cache.sums) == ["a", "z"]
    assert names(cache.entries) == ["a", "xla_gpu_per_fusion_autotune_cache_dir", "z"]


def test_without_a_writable_folder_there_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    cache = CompilationCache(tmp_path / "file")
    cache.open()
    cache.seal()


# Every option that is pinned, set otherwise; JAX reads them when it is imported.
SURROUNDINGS = {
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_TRANSFER_GUARD": "disallow_explicit",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE": "disallow_explicit",
    "JAX_DISABLE_JIT": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_CHECK_TRACER_LEAKS": "1",
    "JAX_ENABLE_CHECKS": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_DTYPE_BITS": "64",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_LEGACY_PRNG_KEY": "error",
    "JAX_ENABLE_CUSTOM_PRNG": "1",
    "JAX_SOFTMAX_CUSTOM_JVP": "1",
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_THREAD_GUARD": "1",
    "JAX_NO_TRACING": "1",
    "JAX_NO_EXECUTION": "1",
}
# Its functions rely on JAX's defaults: ranks and types are promoted, a legacy key is used, and one rate diverges.
LOOSE_STUDY = """
import jax
import jax.numpy as jnp
import numpy as np
import sgdscope as sg

x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
split = {"x": x, "y": (x[:, 0] > 0).astype(np.uint8)}
scale = jnp.linspace(0.5, 1, 3)
margin = lambda p, b: (2.0 * b["y"] - 1) * (b["x"] * scale @ p["w"]) + jnp.zeros((1, 1)).sum(axis=0)
workload = sg.Workload(
    name="loose", version="1", train=split, validation=split, test=split, constant_loss=0.69, constant_score=0.5,
    init=lambda key: {"w": 0.1 * jax.random.normal(jax.random.PRNGKey(1), (3,)) + jax.random.normal(key, (3,))},
    loss=lambda p, b: jax.nn.softplus(-margin(p, b)) ** 2,
    score=lambda p, b: 1.0 * (margin(p, b) > 0),
)
study = sg.Study(
    name="loose", workloads=workload, batch_sizes=(4,), learning_rates=(0.1, 1e30), budgets=sg.Epochs(2), seeds=2,
    optimizers=sg.SGD(),
)
"""


def test_the_users_options_of_jax_change_no_bit(command, tmp_path):
    (tmp_path / "loose.py").write_text(LOOSE_STUDY)
    for folder, environment in (("plain", {}), ("odd", SURROUNDINGS)):
        done = command("run", tmp_path / "loose.py", "--out", tmp_path / folder, **environment)
        assert done.returncode == 0, done.stderr
    plain, odd = (Result(tmp_path / folder) for folder in ("plain", "odd"))
    assert plain.numbers().equals(odd.numbers())
    assert set(plain.numbers()["status"]) == {"complete", "diverged"}
    programs = [(tmp_path / folder / "programs.json").read_text() for folder in ("plain", "odd")]
    assert programs[0] == programs[1]


def test_all_pins_are_options_of_this_version_of_jax():
    with pinned():
        assert not jax.config.values["jax_enable_x64"]
    assert set(REFUSED) - {"jax_exec_time_optimization_effort"} <= set(jax.config.values)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("JAX_RANDOM_SEED_OFFSET", "3", "JAX's option jax_random_seed_offset is 3, which changes what is computed."),
        ("JAX_DISABLE_MOST_OPTIMIZATIONS", "1", "unset JAX_DISABLE_MOST_OPTIMIZATIONS."),
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS=cuda: JAX cannot start there ("),
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS=nonsense: JAX cannot start there ("),
        ("JAX_PLATFORM_NAME", "nonsense", "JAX_PLATFORM_NAME=nonsense: JAX cannot start there ("),
        ("JAX_ENABLE_X64", "maybe", "JAX cannot be loaded: ValueError: invalid truth value 'maybe'"),
    ],
)
def test_what_jax_cannot_start_with_is_refused_in_a_sentence(option, value, said, command, tmp_path):
    """Also where the study file is what starts JAX, by an array that it makes."""
    (tmp_path / "loose.py").write_text(LOOSE_STUDY)
    for arguments in (["plan", "digits"], ["run", "loose.py"]):
        done = command(*arguments, cwd=tmp_path, **{option: value})
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
