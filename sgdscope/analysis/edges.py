"""Optima at an edge of the learning rates tried: better rates may lie beyond, so no verdict rests on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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


def sides(edges: Edges) -> Iterator[tuple[list[float], str, str]]:
    """Yield the batch sizes at each edge, the name of the edge, and which rates to add: larger or smaller ones."""
    for ends, (edge, wanted) in SIDES.items():
        sizes = [size for size, of in sorted(edges.items()) if of == ends]
        if sizes:
            yield sizes, edge, wanted


def left_out(edges: Edges) -> str:
    """Say which batch sizes, or epochs, are left out, why, and which learning rates would tell.

    >>> left_out({64: ("high",), 256: ("high",)})
    'Left out: 64 and 256, where the best learning rate lies at the upper edge of the rates tried. Add larger rates.'
    >>> left_out({})
    ''
    """
    return " ".join(
        f"Left out: {listed(f'{size:g}' for size in sizes)}, where the best learning rate lies at the {edge} of the "
        f"rates tried. Add {wanted} rates."
        for sizes, edge, wanted in sides(edges)
    )
