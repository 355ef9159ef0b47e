"""What differs between studies, found from their declarations and records, in plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sgdscope.analysis.edges import listed
from sgdscope.comparison.matching import Matched, against
from sgdscope.comparison.side import Side
from sgdscope.formatting import exact
from sgdscope.records import WorkloadRecord
from sgdscope.study import Declaration

# Fields of a declaration that change what is trained, and fields that change how precisely it is known.
TREATMENTS = {"schedule": "schedule", "compute_dtype": "type of the matrix products in gradients"}
EFFORTS = {
    "seeds": "seeds",
    "first_seed": "first seed",
    "seeds_at": "seeds at single batch sizes",
    "learning_rates": "learning rates",
    "microbatch_size": "microbatch size",
    "devices_per_trial": "devices for each trial",
    "evaluate_at": "fractions of training at which it is evaluated",
    "noise_scale_at": "fractions of training at which the noise scale is measured",
    "score_margin": "declared margin",
}
# What a field stands for that is empty.
EMPTY = {
    "learning_rates": "searched",
    "microbatch_size": "the whole batch",
    "first_seed": "0",
    "score_margin": "the usual one",
}
OF_RECORDS = {
    "ghost_batch_size": "workload's ghost batch size",
    "unroll": "workload's unrolled steps",
    "chosen_on": "split that chooses learning rates",
    "version": "workload's version",
}
SPLITS = ("training", "validation", "test")
ABBREVIATIONS = ("l2", "l1")


def what_differs(sides: Sequence[Side], found: Sequence[Matched]) -> list[str]:
    """Return each thing that differs in what was trained, such as ``the schedule: halving against cosine``."""
    said = [
        f"the {axis}: {against([key[axis] for key in of.keys])}"
        for axis in ("budget", "optimizer")
        for of in found
        if len({key[axis] for key in of.keys}) > 1
    ]
    for names in dict.fromkeys(tuple(key["workload"] for key in of.keys) for of in found):
        said += _of_workloads(sides, names)
    declarations = _declarations(sides)
    said += _of_fields(declarations, TREATMENTS) if declarations else []
    return list(dict.fromkeys(said))


def unequal_efforts(sides: Sequence[Side]) -> list[str]:
    """Return what differs in how the studies were measured, such as ``seeds: 5 against 15``."""
    declarations = _declarations(sides)
    said = [text.removeprefix("the ") for text in _of_fields(declarations, EFFORTS)] if declarations else []
    sizes = [side.tables.trials["batch_size"].unique().sort().to_list() for side in sides]
    if any(of != sizes[0] for of in sizes):
        said.insert(0, f"batch sizes: {against([', '.join(map(str, of)) for of in sizes])}")
    return said


def sentence(sides: Sequence[Side], differs: Sequence[str]) -> str:
    """Say what differs between the studies, and whether that is one thing."""
    names = listed(side.name for side in sides)
    if not differs:
        return f"{names}: no difference was found in what was trained."
    if len(differs) == 1:
        return f"{names} differ in {differs[0]}."
    return (
        f"{names} differ in more than one thing, so no difference in results has one known cause: {'; '.join(differs)}."
    )


def _declarations(sides: Sequence[Side]) -> list[Declaration]:
    """Return the declarations; none where a study has none."""
    known = [side.declaration for side in sides if side.declaration is not None]
    return known if len(known) == len(sides) else []


def _of_fields(values: Sequence[Any], names: dict[str, str]) -> list[str]:
    """Return the fields whose values differ."""
    told = {
        words: [_plain(getattr(value, name) or EMPTY.get(name)) for value in values] for name, words in names.items()
    }
    return [f"the {words}: {against(texts)}" for words, texts in told.items() if len(set(texts)) > 1]


def _of_workloads(sides: Sequence[Side], names: Sequence[str]) -> list[str]:
    records = [side.tables.records[name] for side, name in zip(sides, names, strict=True)]
    said = _of_own_fields(records) + _of_fields(records, OF_RECORDS)
    sizes = _differing(records, lambda record: record.examples)
    for place, split in enumerate(SPLITS):
        texts = [f"{record.examples[place]:,}" for record in records]
        said += [f"the {split} examples: {against(texts)}"] * (len(set(texts)) > 1)
    # Other fields or other numbers of examples explain other data and other functions.
    if not said and not sizes and _differing(records, lambda record: record.data_sha256):
        said.append("the workload's data: other examples or labels, as many of them")
    if not said and _other_programs(sides, names):
        said.append("the workload's functions: its network, loss, score or augmentation is another program")
    if len(set(names)) > 1 and len(said) != 1:
        said.insert(0, f"the workload: {against(names)}")
    return said


def _of_own_fields(records: Sequence[WorkloadRecord]) -> list[str]:
    """Return which of the fields that workloads declare differ."""
    fields = [dict(record.fields) for record in records]
    names = dict.fromkeys(name for of in fields for name in of)
    texts = {name: [_plain(of.get(name)) for of in fields] for name in names}
    return [f"the workload's {_called(name)}: {against(of)}" for name, of in texts.items() if len(set(of)) > 1]


def _called(field: str) -> str:
    """Return the name of a workload's field in words.

    >>> _called("l2"), _called("label_noise")
    ('L2', 'label noise')
    """
    return field.upper() if field in ABBREVIATIONS else field.replace("_", " ")


def _other_programs(sides: Sequence[Side], names: Sequence[str]) -> bool:
    """Return whether the functions of the workloads were traced to other programs by one version of JAX."""
    traced = [
        {
            key.removesuffix(f"workload {name}"): program
            for key, program in side.programs.items()
            if key.endswith(f"workload {name}")
        }
        for side, name in zip(sides, names, strict=True)
    ]
    return any(len({of[version] for of in traced if version in of}) > 1 for version in set().union(*traced))


def _differing(records: Sequence[WorkloadRecord], value: Callable[[WorkloadRecord], Any]) -> bool:
    return len({value(record) for record in records}) > 1


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value))
    if value is None:
        return "none"
    return exact(value) if isinstance(value, float) else str(value)
