"""What is printed changes nothing but the printing, and shows names as they are."""

import errno
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.cli import main
from sgdscope.engine.progress import RunProgress
from sgdscope.engine.standing import Standing
from sgdscope.terminal import Output, Terminal, visible

NAMES = ["[wd=0]", "s[/b]", ":smile:", "[/]", "[bold]x[/bold]", "{task}", "a\x1b[2Jb", "<b>&amp;", "\\[x]", "é†"]
QUICK = [
    "--batch-sizes",
    "256",
    "--learning-rates",
    "0.125",
    "--seeds",
    "1",
    "--budgets",
    "steps:2",
    "--optimizers",
    "sgd",
]


class Closed(io.StringIO):
    def __init__(self, code):
        super().__init__()
        self.code = code

    def write(self, text):
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_shows_every_name_as_it_is(name):
    for how in ({}, {"force_terminal": True, "color_system": "standard"}):
        console = Terminal(file=io.StringIO(), width=100, _environ={}, **how)
        console.print(name)
        assert console.file.getvalue() == f"{visible(name)}\n"


@pytest.mark.parametrize("name", NAMES)
def test_progress_shows_every_name_as_it_is_on_anybodys_console(name):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, _environ={})
    with RunProgress(console, name) as progress:
        progress.say(f"{name} failed")
        progress.show_cells(Standing({(name, "b", "sgd"): {8: 0.5}, ("other", "b", "sgd"): {8: 0.5}}, f"best {name}"))
    said = console.file.getvalue()
    assert f"{visible(name)} failed" in said
    assert f"best {visible(name)}" in said
    assert f"\n{visible(name)}  " in said
    assert "\x1b[2J" not in said


@pytest.mark.parametrize("code", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
def test_progress_on_a_console_that_fails_ends_nothing(code):
    for how in ({}, {"force_terminal": True}):
        console = Console(file=Closed(code), _environ={}, **how)
        with RunProgress(console, "mine") as progress:
            progress.say("a")
            progress.show(1, 2, 3.0)
            progress.show_cells(Standing({("w", "b", "sgd"): {8: 0.5}}, ""))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_that_a_stream_does_not_have_are_replaced(encoding):
    content = io.BytesIO()
    out = Output(io.TextIOWrapper(content, encoding=encoding))
    out.write("0.9 ±0.1 †\n")
    out.flush()
    assert content.getvalue() == "0.9 ±0.1 †\n".encode(encoding, "replace")


def test_a_study_file_that_closes_the_output_stops_no_other_from_printing():
    content = io.BytesIO()
    out = Output(io.TextIOWrapper(content))
    out.write("of the file\n")
    out.close()
    assert content.getvalue() == b"of the file\n"
    out.write("of the command\n")
    out.flush()
    assert content.getvalue() == b"of the file\nof the command\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed") / "study"
    assert main(["run", "digits", "--out", str(folder), *QUICK]) == 0
    return folder


def ended(arguments, **how):
    with subprocess.Popen([sys.executable, "-m", "sgdscope.cli", *map(str, arguments)], **how) as process:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()  # nobody reads it
        return process.wait(timeout=300)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_pipe_leaves_the_run_and_its_report_whole(closed, tmp_path):
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {closed: subprocess.PIPE}
    assert ended(["run", "digits", "--out", tmp_path / "s", *QUICK], **how) == 0
    assert (tmp_path / "s" / "report.html").exists()
    assert len(sg.Result(tmp_path / "s").trials) == 1


@pytest.mark.parametrize("command", ["show", "claims", "claims --json", "advise", "advise --json", "report", "studies"])
def test_no_command_minds_a_closed_pipe(command, folder, tmp_path):
    name, *options = command.split()
    arguments = [name, *([] if name == "studies" else [folder]), *options]
    if name == "report":
        arguments += ["--out", tmp_path / "page.html"]
    error = tmp_path / "error"
    with error.open("w") as file:
        assert ended(arguments, stdout=subprocess.PIPE, stderr=file) == 0
    assert error.read_text() == ""


def test_a_full_disk_behind_the_output_is_told(folder):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sgdscope.cli", "show", str(folder)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "sgdscope: The output cannot be written: No space left on device.\n"


def test_closed_descriptors_are_nobody_elses(folder, tmp_path):
    """A file that is opened where the output was closed would get what a library prints."""
    line = 'exec "$0" -m sgdscope.cli run digits --out "$1" ' + " ".join(QUICK) + " <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", line, sys.executable, str(tmp_path / "s")], check=False)
    assert done.returncode == 0
    assert sg.Result(tmp_path / "s").damaged == []
    assert (tmp_path / "s" / "report.html").exists()
    assert list((tmp_path / "s" / "leases").iterdir()) == []


def test_a_name_with_markup_and_escapes_runs_on_a_terminal_and_is_one_folder(study_file, tmp_path):
    name = "../s[/b]\x1b[2J"
    text = study_file.read_text().replace('name="small"', f"name={name!r}").replace("(64, 256)", "(256,)")
    study_file.write_text(text.replace("seeds=3", "seeds=1, learning_rates=(0.125,)"))
    inside = tmp_path / "inside"
    inside.mkdir()
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sgdscope.cli", "run", str(study_file)], cwd=inside, stdout=writer, stderr=writer,
        env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip
    os.close(writer)
    said = b""
    while True:
        try:
            part = os.read(reader, 65536)
        except OSError:  # the terminal of a process that has ended
            break
        if not part:
            break
        said += part
    os.close(reader)
    assert process.wait() == 0, said
    assert b"\x1b[2J" not in said
    assert b"../s[/b]\\x1b[2J" in said
    assert [path.name for path in inside.iterdir()] == ["sgdscope-..-s[-b]-[2J"]


@pytest.mark.parametrize("command", ["run digits", "plan digits", "report {}", "figures {}", "analyze t.csv"])
def test_an_empty_out_is_not_the_current_folder(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command.format(folder).split(), "--out", ""]) == 2
    assert capsys.readouterr().err == "sgdscope: --out: '' names no folder. The current folder is '.'.\n"
    assert list(tmp_path.iterdir()) == []


def test_analyze_never_writes_over_the_table_that_it_reads(tmp_path, capsys):
    table = tmp_path / "curves.csv"
    rows = [f"{size},{rate},{seed},0.9{seed}" for size in (8, 32) for rate in (0.1, 0.2) for seed in (0, 1)]
    table.write_text("\n".join(["batch_size,learning_rate,seed,score", *rows]))
    before = table.read_text()
    assert main(["analyze", str(table), "--out", str(tmp_path)]) == 2
    assert "is the table itself. Give another folder" in capsys.readouterr().err
    assert table.read_text() == before


def test_every_command_names_a_copy_and_a_damaged_commit(folder, tmp_path, capsys):
    (path,) = (folder / "trials").iterdir()
    copy = path.with_name(f"{path.stem}(1).parquet")
    copy.write_text("half")
    try:
        for command in (["show"], ["claims"], ["advise"], ["report", "--out", str(tmp_path / "page.html")]):
            assert main([command[0], str(folder), *command[1:]]) == 0
            out, error = capsys.readouterr()
            assert f"Not a file of this study, and ignored: {copy}." in out + error
    finally:
        copy.unlink()
