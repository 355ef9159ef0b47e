import gzip
import hashlib
import io
import os
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sgdscope.data import cifar10, download, fashion_mnist, mnist, ptb
from sgdscope.data.published import Content

TEXTS = {
    "ptb.train.txt": " the cat saw the dog \n a <unk> saw a \n the end \n",
    "ptb.valid.txt": " a dog \n",
    "ptb.test.txt": " the cat \n the end \n",
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Contents by name for each data set: the official formats, a few examples, in place of what was published."""
    draw = np.random.default_rng(0)

    def idx(*shape):
        head = struct.pack(f">{1 + len(shape)}i", 2048 + len(shape), *shape)
        return head + draw.integers(0, 256, shape, np.uint8).tobytes()

    def drawn():
        return {
            "train-images-idx3-ubyte": idx(7, 28, 28),
            "train-labels-idx1-ubyte": idx(7),
            "t10k-images-idx3-ubyte": idx(3, 28, 28),
            "t10k-labels-idx1-ubyte": idx(3),
        }

    contents = {
        "mnist": drawn(),
        "cifar10": {name: draw.integers(0, 256, 4 * 3073, np.uint8).tobytes() for name in cifar10.CONTENTS},
        "ptb": {name: text.encode() for name, text in TEXTS.items()},
        "fashion_mnist": drawn(),
    }
    modules = (mnist, "MNIST", 2), (cifar10, "CIFAR10", 3), (ptb, "PTB", None), (fashion_mnist, "FASHION_MNIST", None)
    for module, constant, held_out in modules:
        published = getattr(module, constant)
        sums = {n: Content(len(c), hashlib.sha256(c).hexdigest()) for n, c in contents[published.name].items()}
        shrunk = replace(published, contents=sums, package=None)
        monkeypatch.setattr(module, constant, shrunk)
        monkeypatch.setitem(download.DATA_SETS, published.name, shrunk)
        if held_out:
            monkeypatch.setattr(module, "HELD_OUT", held_out)
    monkeypatch.delenv("SGDSCOPE_DATA", raising=False)
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    return contents


@pytest.fixture
def lay():
    """Write contents into a folder, as they are, gzipped, or as members of a tar."""

    def write(folder, contents, how=""):
        folder.mkdir(parents=True, exist_ok=True)
        if how == "tar":
            (folder / "cifar-10-binary.tar.gz").write_bytes(tar_of(contents))
        for name, content in contents.items() if how != "tar" else ():
            (folder / f"{name}{how}").write_bytes(gzip.compress(content) if how else content)
        return folder

    return write


def tar_of(contents, prefix="cifar-10-batches-bin/", links=()):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{prefix}{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def make_tar():
    return tar_of


@pytest.fixture
def real():
    """The folder of the real data sets, where there is one."""
    if not os.environ.get("SGDSCOPE_DATA"):
        pytest.skip("SGDSCOPE_DATA names no folder with the real data sets")
    return Path(os.environ["SGDSCOPE_DATA"])


@pytest.fixture
def one_sentence():
    """Assert that an error is one sentence."""

    def check(error):
        text = str(error)
        assert text.endswith("."), text
        assert "\n" not in text, text
        assert ". " not in text, text

    return check
