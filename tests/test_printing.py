import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sgdscope.terminal import TextTable, print_table, print_text, wrapped

NUMBERS = ("0.982 ±0.006", "0.011 [0.0028, 0.044]†", "−0.17 [−∞, 1.4e-05]", "1,281,167", "0.0011 ×÷1.2")
ROWS = tuple((name, str(size), *NUMBERS) for name in ("sgd", "momentum:0.9") for size in (4, 1024))
TABLE = TextTable(
    ("optimizer", "batch", "test score", "optimal rate", "slope", "examples", "loss"), ROWS, left=1, names=2,
    caption="± and [ ] are 95 % intervals over n = 5 seeds",
)  # fmt: skip
# What no line may end in the midst of.
ATOMS = [part for cell in NUMBERS for part in re.findall(r"\[[^\]]*\]†?|\S+", cell.replace("[", " ["))]


def printed(print_it, what, width, terminal=True, **environment):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, _environ=environment)
    print_it(console, what)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_no_width_breaks_a_number_or_loses_one(width):
    said = printed(print_table, TABLE, width)
    lines = said.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in said
    for atom in ATOMS:
        assert sum(line.count(atom) for line in lines) >= len(ROWS), atom
    assert sum("momentum:0.9" in line for line in lines) == 2


def test_what_fits_stands_in_a_line_a_row():
    lines = printed(print_table, TABLE, 200).splitlines()
    assert len(lines) == 2 + 4 + 1 + 1  # heading and rule, rows, the gap between optimizers, the caption
    assert all(all(number in line for number in NUMBERS) for line in (*lines[2:4], *lines[5:7]))
    assert len({line.rindex("×") for line in lines[2:4]}) == 1


def test_a_pipe_has_lines_as_long_as_they_are_unless_columns_are_set(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = printed(print_table, TABLE, 30, terminal=False)
    assert wide == printed(print_table, TABLE, 200)
    sentence = "rate 0.25 [0.18, 0.35] " * 20
    assert printed(print_text, sentence, 30, terminal=False) == sentence + "\n"
    monkeypatch.setenv("COLUMNS", "30")
    assert max(map(len, printed(print_table, TABLE, 30, terminal=False).splitlines())) <= 30


@given(
    st.lists(st.sampled_from([*ATOMS, "batch", "size", "n = 5", "95 %"]), min_size=1, max_size=30), st.integers(1, 90)
)
def test_wrapping_loses_nothing_and_breaks_nothing(parts, width):
    text = " ".join(parts)
    lines = wrapped(text, width)
    assert " ".join(lines) == text
    longest = max(map(len, parts))
    assert all(len(line) <= max(width, longest) for line in lines)
    for part in set(parts):
        assert sum(line.count(part) for line in lines) == text.count(part)


def test_markup_is_text():
    for text in ("[/b] [red]x[/] :smile:", "[wd=0]"):
        assert printed(print_text, text, 80) == text + "\n"
