"""The commands that resume or extend a study: they can be pasted into a shell, or into Python, and run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgdscope.formatting import exact
from sgdscope.seeds import parse_seeds_at
from sgdscope.studies import origin_of
from sgdscope.study import Declaration

# The words after ``sgdscope run`` that ask for a study.
Words = tuple[str, ...]


def words_of(declaration: Declaration, kept: Mapping[str, Sequence[str]]) -> Words | None:
    """Return how the command line names a study; None where only Python knows it.

    Args:
        declaration: The study as its folder declares it.
        kept: The words that trained each of its workloads, as far as the folder keeps them.
    """
    for record in declaration.workloads:
        if record.name in kept:
            return tuple(word for word in kept[record.name] if word != "--until-decided")
    return origin_of(declaration)


def resumed(words: Words | None, folder: Path, until_decided: bool = False) -> str:
    """Return the command that trains what a folder lacks, or what would decide what is open.

    >>> resumed(("digits",), Path("my folder"), until_decided=True)
    "sgdscope run digits --out 'my folder' --until-decided"
    >>> resumed(None, Path("s"))
    "sg.run(study, 's')"
    """
    if words is None:
        return f"sg.run(study, {str(folder)!r}{', until_decided=True' * until_decided})"
    return shlex.join(["sgdscope", "run", *words, "--out", str(folder), *["--until-decided"] * until_decided])


def extended(words: Words | None, folder: Path, row: Mapping[str, Any]) -> str:
    """Return the command that extends a folder as a row of the further trials says.

    What the folder holds beside the study that the command names is kept, so only what is added is named.

    >>> row = {"field": "batch_sizes", "added": [2.0, 96.0], "cells": []}
    >>> extended(("digits", "--batch-sizes", "4", "8", "--seeds", "5"), Path("s"), row)
    'sgdscope run digits --batch-sizes 4 8 2 96 --seeds 5 --out s'
    >>> extended(None, Path("s"), row)
    "sg.run(dataclasses.replace(study, batch_sizes=(*study.batch_sizes, 2, 96)), 's')"
    """
    field, values = row["field"], [exact(value) for value in row["added"]]
    if field == "seeds_at":
        values = list(row["cells"])
    if words is None:
        return f"sg.run(dataclasses.replace(study, {field}={_in_python(field, values)}), {str(folder)!r})"
    option = f"--{field.replace('_', '-')}"
    # --quick is a number of seeds too.
    given = [word for word in words if not (field == "seeds" and word == "--quick")]
    if option in given:
        place = given.index(option) + 1
        end = next((k for k in range(place, len(given)) if given[k].startswith("--")), len(given))
        given[place:end] = values if field == "seeds" else [*given[place:end], *values]
        return shlex.join(["sgdscope", "run", *given, "--out", str(folder)])
    return shlex.join(["sgdscope", "run", *given, "--out", str(folder), option, *values])


def _in_python(field: str, values: Sequence[str]) -> str:
    if field == "seeds":
        return values[0]
    if field == "seeds_at":
        values = [
            f"sg.SeedsAt({cell.optimizer!r}, {cell.batch_size}, sg.Seeds({cell.seeds.search}, {cell.seeds.near_best}, "
            f"{cell.seeds.best}, {cell.seeds.rates}))"
            for cell in map(parse_seeds_at, values)
        ]
    return f"(*study.{field}, {', '.join(values)})"
