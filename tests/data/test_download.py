import errno
import gzip
import io
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest
from rich.console import Console

from sgdscope.cli import main
from sgdscope.data import download
from sgdscope.data.cifar10 import read_cifar10
from sgdscope.data.download import DATA_SETS, fetch
from sgdscope.data.fashion_mnist import read_fashion_mnist
from sgdscope.data.mnist import read_mnist
from sgdscope.data.ptb import read_ptb
from sgdscope.data.published import check, find
from sgdscope.errors import InputError

TAR = "cifar-10-binary.tar.gz"


class Mirror:
    """A server of files by path, on a port of the system's choice; what is in ``cut`` ends half way."""

    def __init__(self):
        mirror = self
        self.files, self.asked, self.cut = {}, [], set()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                content = mirror.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write((content or b"")[: len(content) // 2 if self.path in mirror.cut else None])

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirror(small, make_tar, monkeypatch):
    """A first mirror, /a/, and a second, /b/, which have all that is published."""
    mirror = Mirror()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, data_set in list(DATA_SETS.items()):
        inside = "fashion/" if name == "fashion_mnist" else ""  # its files are called as MNIST's are
        mirrors = (f"{mirror.url}/a/{inside}", f"{mirror.url}/b/{inside}")
        monkeypatch.setitem(DATA_SETS, name, replace(data_set, mirrors=mirrors))
    for base in ("/a/", "/b/"):
        mirror.files |= {f"{base}{name}.gz": gzip.compress(content) for name, content in small["mnist"].items()}
        fashion = small["fashion_mnist"].items()
        mirror.files |= {f"{base}fashion/{name}.gz": gzip.compress(content) for name, content in fashion}
        mirror.files |= {f"{base}{name}": content for name, content in small["ptb"].items()}
        mirror.files[f"{base}{TAR}"] = make_tar(small["cifar10"])
    yield mirror
    mirror.close()


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


READERS = {"mnist": read_mnist, "cifar10": read_cifar10, "ptb": read_ptb, "fashion_mnist": read_fashion_mnist}


@pytest.mark.parametrize("name", READERS)
def test_what_is_fetched_is_read_and_a_second_fetch_downloads_nothing(mirror, console, small, tmp_path, name):
    folder = fetch(name, tmp_path, console)
    assert folder == tmp_path / DATA_SETS[name].folder
    assert names(tmp_path) == sorted(small[name])  # unpacked, and nothing else
    assert set(READERS[name](tmp_path)) == {"train", "validation", "test"}
    assert len(mirror.asked) == len(DATA_SETS[name].published)
    said = console.file.getvalue()
    assert said.startswith(DATA_SETS[name].source)
    mirror.asked.clear()
    assert fetch(name, tmp_path, console) == folder
    assert mirror.asked == []
    assert console.file.getvalue() == said


def test_into_the_variable_or_the_cache(mirror, console, tmp_path, monkeypatch):
    assert fetch("ptb", None, console) == tmp_path / "cache" / "data" / "ptb"
    monkeypatch.setenv("SGDSCOPE_DATA", str(tmp_path / "named"))
    assert fetch("ptb", None, console) == tmp_path / "named" / "ptb"
    assert len(read_ptb()["test"]["token"]) == 6


def test_only_what_is_missing_or_wrong_is_fetched_and_where_it_lies(mirror, console, lay, small, tmp_path):
    lay(tmp_path, small["mnist"], ".gz")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"broken")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert fetch("mnist", tmp_path, console) == tmp_path
    assert mirror.asked == ["/a/train-labels-idx1-ubyte.gz", "/a/t10k-labels-idx1-ubyte.gz"]
    check(DATA_SETS["mnist"], tmp_path)


@pytest.mark.parametrize("first", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("how", ["", ".gz"])
def test_files_of_the_same_name_are_kept_where_they_are_another_sets(
    mirror, console, lay, small, tmp_path, first, how, one_sentence
):
    second = "fashion_mnist" if first == "mnist" else "mnist"
    lay(tmp_path, small[first], how)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=f"^{second}: .* is not the published") as error:
        READERS[second](tmp_path)
    one_sentence(error.value)
    assert fetch(second, tmp_path, console) == tmp_path / DATA_SETS[second].folder
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    for name in (first, second):
        assert READERS[name](tmp_path)["test"]["picture"].tobytes() == small[name]["t10k-images-idx3-ubyte"][16:]
    mirror.asked.clear()
    for name in (first, second):
        fetch(name, tmp_path, console)
    assert mirror.asked == []


@pytest.mark.parametrize("there", ["tar", "bin"])
def test_a_wrong_cifar_is_put_right(mirror, console, lay, small, tmp_path, there):
    if there == "tar":
        (tmp_path / TAR).write_bytes(b"broken")
    else:
        lay(tmp_path / "cifar-10-batches-bin", small["cifar10"] | {"test_batch.bin": b"broken"})
    fetch("cifar10", tmp_path, console)
    check(DATA_SETS["cifar10"], tmp_path)
    assert mirror.asked == [f"/a/{TAR}"]


@pytest.mark.parametrize("fault", ["404", "truncated", "foreign", "damaged"])
def test_a_second_mirror_stands_in_for_the_first(mirror, console, tmp_path, fault):
    path = "/a/train-images-idx3-ubyte.gz"
    if fault == "404":
        del mirror.files[path]
    elif fault == "truncated":
        mirror.cut.add(path)
    else:
        mirror.files[path] = gzip.compress(b"foreign") if fault == "foreign" else mirror.files[path][:900]
    fetch("mnist", tmp_path, console)
    check(DATA_SETS["mnist"], tmp_path)
    assert [asked for asked in mirror.asked if "train-images" in asked] == [path, path.replace("/a/", "/b/")]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("404", "cannot be fetched (status 404)"),
        ("truncated", "cannot be fetched (ChunkedEncodingError)"),
        ("foreign", "is not the published ptb.valid.txt (its SHA-256 differs)"),
        ("no network", "cannot be fetched (ConnectionError)"),
    ],
)
def test_where_no_mirror_has_it_one_sentence_and_no_half_file(mirror, tmp_path, capsys, one_sentence, fault, said):
    for path in ("/a/ptb.valid.txt", "/b/ptb.valid.txt"):
        if fault == "404":
            del mirror.files[path]
        elif fault == "truncated":
            mirror.cut.add(path)
        elif fault == "foreign":
            mirror.files[path] = b" a cat \n"
    if fault == "no network":
        mirror.close()
    assert main(["data", "fetch", "ptb", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    one_sentence(error)
    assert error.startswith("sgdscope: ptb: ")
    assert error.count(said) == 2
    assert names(tmp_path) == ([] if fault == "no network" else ["ptb.train.txt"])


def test_a_full_disk_and_a_folder_that_cannot_be(mirror, console, tmp_path, monkeypatch, one_sentence):
    (tmp_path / "file").write_text("")
    (tmp_path / TAR).write_bytes(b"broken")
    for name, where, said in (
        ("ptb", tmp_path / "file", "cannot be written (Not a directory)"),
        ("cifar10", tmp_path / TAR, "is a file; give the folder to fetch cifar10 to"),
    ):
        with pytest.raises(InputError) as error:
            fetch(name, where, console)
        assert said in str(error.value)
        one_sentence(error.value)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)\.$"):
        fetch("ptb", tmp_path / "new", console)
    assert names(tmp_path / "new") == []
    with pytest.raises(InputError, match="data set 'imagenet' is not one of mnist, cifar10, ptb"):
        fetch("imagenet", tmp_path, console)


def test_interrupted_it_leaves_no_half_file(mirror, console, tmp_path, monkeypatch):
    def interrupted(self, count):
        raise KeyboardInterrupt

    monkeypatch.setattr(download._Bar, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("cifar10", tmp_path, console)
    assert names(tmp_path) == []
    assert find(DATA_SETS["cifar10"], tmp_path) is None


def test_a_terminal_shows_a_bar(mirror, tmp_path):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    fetch("cifar10", tmp_path, terminal)
    assert "100" in terminal.file.getvalue() or "━" in terminal.file.getvalue()


def test_the_command_fetches_and_checks(mirror, tmp_path, capsys):
    assert main(["data", "fetch", "mnist", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'mnist'}\n"
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mnist: verified ({tmp_path / 'mnist'})"
    assert lines[1].startswith("cifar10 is not in")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert main(["data", "check", "--data", str(tmp_path)]) == 2
    assert "is not the published t10k-labels-idx1-ubyte (0 of" in capsys.readouterr().out
