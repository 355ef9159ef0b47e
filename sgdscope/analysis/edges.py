"""Optima at an edge of the learning rates tried: better rates may lie beyond, so no verdict rests on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

# By what it concerns, a batch size or a number of epochs: at which ends of the rates tried its optimum lies.
Edges = Mapping[int, tuple[str, ...]] | Mapping[float, tuple[str, ...]]

# How the ends are named, and which rates would tell.
SIDES: dict[tuple[str, ...], tuple[str, str]] = {
    ("high",): ("upper edge", "larger"),
    ("low",): ("lower edge", "smaller"),
    ("low", "high"): ("lower and the upper edge", "smaller and larger"),
}


def listed(values: Iterable[object]) -> str:
    """Return values as a list in words.

    >>> listed([64, 256, 512])
    '64, 256 and 512'
    """
    texts = [str(value) for value in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else "".join(texts)


def spans(sizes: Collection[int], tried: Sequence[int], open_end: bool = False) -> str:
    """Return batch sizes in words: three and more that follow each other in what was tried as a range.

    Args:
        sizes: The batch sizes.
        tried: All that were tried, ascending.
        open_end: Whether a range up to the largest tried is said to have no end.

    >>> spans([2, 4, 8, 64], [2, 4, 8, 16, 32, 64])
    '2 to 8 and 64'
    >>> spans([32, 64], [2, 4, 8, 16, 32, 64], open_end=True)
    '32 and larger'
    """
    runs: list[list[int]] = []
    for place, size in enumerate(tried):
        if size in sizes:
            follows = runs and tried[place - 1] == runs[-1][-1]
            runs[-1].append(size) if follows else runs.append([size])
    said: list[str] = []
    for run in runs:
        if open_end and len(run) > 1 and run[-1] == tried[-1]:
            said.append(f"{run[0]} and larger")
        else:
            said += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return listed(said)


def sides(edges: Edges) -> Iterator[tuple[list[float], str, str]]:
    """Yield the batch sizes at each edge, the name of the edge, and which rates to add: larger or smaller ones."""
    for ends, (edge, wanted) in SIDES.items():
        sizes = [size for size, of in sorted(edges.items()) if of == ends]
        if sizes:
            yield sizes, edge, wanted


def left_out(edges: Edges) -> str:
    """Say which batch sizes, or epochs, are left out, why, and which learning rates would tell.

    >>> print(left_out({64: ("high",)}))
    Left out: 64, where the best rate's interval reaches the upper edge of those tried. Add larger rates or seeds.
    >>> left_out({})
    ''
    """
    return " ".join(
        f"Left out: {listed(f'{size:g}' for size in sizes)}, where the best rate's interval reaches the "
        f"{edge} of those tried. Add {wanted} rates or seeds."
        for sizes, edge, wanted in sides(edges)
    )
