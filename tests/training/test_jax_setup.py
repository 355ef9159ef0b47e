from sgdscope.training.jax_setup import CompilationCache


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
