"""Which column is which: by our names, by those that people and tools use, or as the user says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sgdscope.errors import InputError, did_you_mean
from sgdscope.importing.table import TextTable, number

NEEDED = ("batch_size", "learning_rate", "score")
# What columns are called elsewhere; names that come first go first.
CALLED = {
    "batch_size": (
        *("effective_batch_size", "global_batch_size", "total_batch_size", "total_train_batch_size"),
        *("batchsize", "bs", "batch", "train_batch_size", "train_bs", "training_batch_size", "batch_size_train"),
        *("per_device_train_batch_size", "per_gpu_batch_size", "minibatch_size", "mini_batch_size", "minibatch"),
    ),
    "learning_rate": (
        *("learningrate", "lr", "initial_learning_rate", "initial_lr", "init_lr", "base_learning_rate", "base_lr"),
        *("peak_learning_rate", "peak_lr", "max_lr", "lr0", "eta", "step_size", "stepsize", "rate"),
    ),
    "seed": (
        *("random_seed", "rng_seed", "manual_seed", "global_seed", "torch_seed", "seed_everything", "random_state"),
        *("replicate", "repeat", "repetition", "run", "trial"),
    ),
    "optimizer": ("optim", "opt", "optimizer_name", "optimizer_type", "optimizer_class"),
    "momentum": ("sgd_momentum", "mom"),
}
# Names of scores: larger is better in the first, smaller in the second, and of the last it is not known.
LARGER = (
    *("accuracy", "acc", "top1", "top_1", "acc1", "acc_1", "top1_acc", "top1_accuracy", "top_1_accuracy"),
    *("balanced_accuracy", "f1", "f1_score", "auc", "auroc", "roc_auc", "r2", "bleu", "map", "miou", "iou", "dice"),
    *("psnr", "reward", "return"),
)
SMALLER = (
    *("error", "err", "error_rate", "perplexity", "ppl", "loss", "cross_entropy", "ce", "nll", "mse", "rmse", "mae"),
    *("wer", "cer", "bpc", "bpb", "bits_per_character", "fid"),
)
# What says so within a longer name.
MINIMIZED = re.compile(r"loss|error|perplexity|ppl|nll|entropy|(?<![a-z])(err|mse|rmse|mae|wer|cer|fid|bpc)(?![a-z])")
UNKNOWN = ("value", "values", "objective", "metric", "result", "target")
SPLITS = {
    **dict.fromkeys(("test", "testing", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("train", "training", "trn"), "train"),
}
# Words beside a metric that say nothing of which it is; the best along training is taken only where the last is not.
BESIDE = ("final", "last", "end", "epoch", "mean", "avg", "step")
FLATTERED = ("best", "max", "min")
# Where tools put parameters and metrics.
PLACES = re.compile(
    r"^(params?|config|hparams?|hparam|hyperparameters?|user_attrs?|metrics?|summary|results?|data|args|cfg|tags)_(?=.)"
)
OF_METRICS = re.compile(r"^(metrics?|summary|results?)[./]", re.IGNORECASE)
PAIR = re.compile(r"([A-Za-z_][\w.]*?)=(.*?)(?=[,;&/ \-_]+[A-Za-z_][\w.]*=|[,;&/ ]|$)")


class Metric(NamedTuple):
    """What a column's name says of a metric: ``split`` is empty where none is named, ``best`` if along training."""

    name: str
    split: str
    best: bool

    @property
    def place(self) -> tuple[int, int, int, int] | None:
        """Where it stands among those that may be the score, the first being first; None where it cannot be."""
        kinds = [(LARGER, 0), (UNKNOWN, 1), (SMALLER, 2)]
        kind = next(((rank, names.index(self.name)) for names, rank in kinds if self.name in names), None)
        splits = {"test": 0, "validation": 1, "": 2}
        if kind is None or self.split not in splits:
            return None
        return (0 if self.name == "value" else 1 + kind[0], splits[self.split], int(self.best), kind[1])


def plain(name: str) -> str:
    """Return a name as we write names, without the place where its tool keeps it.

    >>> plain("params.batchSize"), plain("Val Accuracy"), plain("config/optimizer.lr")
    ('batch_size', 'val_accuracy', 'optimizer_lr')
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix(" (twice)").strip())
    text = re.sub(r"[^0-9a-z]+", "_", text.lower()).strip("_")
    while (bare := PLACES.sub("", text)) != text:
        text = bare
    return text


def metric(name: str) -> Metric:
    """Return what a column's name says of a metric.

    >>> metric("metrics.val/acc"), metric("best_test_error")
    (Metric(name='acc', split='validation', best=False), Metric(name='error', split='test', best=True))
    """
    words = [word for word in plain(name).split("_") if word not in BESIDE] or [plain(name)]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS and word not in FLATTERED]
    return Metric("_".join(rest), splits[0] if splits else "", any(word in FLATTERED for word in words))


def named(table: TextTable, roles: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return which column of a table holds what, the name of each by ours.

    Names that are ours are taken first, but for ``chosen``; then those of :data:`CALLED`, and of scores those of a
    test set before those of a validation set. A parameter is never taken from what was measured along training.

    Args:
        table: The table.
        roles: All that a column can be.
        chosen: What the user says.

    Raises:
        InputError: If a column that is needed is missing, or several may be meant.
    """
    found = {ours: _column(table, ours, theirs, roles) for ours, theirs in chosen.items()}
    for name in table.columns:
        ours = re.sub(r"[\s-]+", "_", name.removesuffix(" (twice)").strip().lower())
        if ours not in roles or ours in chosen:
            continue
        if table.columns[found.setdefault(ours, name)] != table.columns[name]:
            raise InputError(f"{table.path} has two columns {ours!r} that differ. Remove or rename one of them.")
    if "score" not in found and "test_score" in found:
        found["score"] = found["test_score"]
    if "status" not in found and "state" in found:
        found["status"] = found["state"]
    for ours, names in CALLED.items():
        if ours not in found and (parameter := _parameter(table, ours, names)) is not None:
            found[ours] = parameter
    taken = set(found.values())
    metrics = {name: metric(name) for name in table.columns if name not in taken and any(table.columns[name])}
    if "score" not in found and (score := _score(metrics)) is not None:
        found["score"] = score
        of = metrics[score]
        if of.split == "test" and "validation_score" not in found:
            alike = [other for other, its in metrics.items() if its == of._replace(split="validation")]
            found |= {"validation_score": alike[0]} if alike else {}
    if "train_loss" not in found:
        losses = [name for name, of in metrics.items() if (of.name, of.split, of.best) == ("loss", "train", False)]
        found |= {"train_loss": losses[0]} if losses else {}
    missing = [ours for ours in NEEDED if ours not in found]
    if missing:
        raise InputError(_missing(table, missing))
    return found


def goal_of(name: str) -> str:
    """Return whether a score of this name is to be maximized or minimized; empty where the name does not say.

    >>> goal_of("metrics.test/loss"), goal_of("top1_err"), goal_of("score")
    ('minimize', 'minimize', '')
    """
    of = metric(name).name
    if of in LARGER:
        return "maximize"
    return "minimize" if of in SMALLER or MINIMIZED.search(name.lower()) else ""


def with_pairs(table: TextTable) -> TextTable:
    """Return a table with the parameters that the names of its runs say, such as ``bs=32,lr=0.1,seed=0``."""
    columns = dict(table.columns)
    for name, texts in table.columns.items():
        pairs = [dict(PAIR.findall(text or "")) for text in texts]
        if pairs and all(len(of) >= 2 for of in pairs) and not all((text or "").startswith("{") for text in texts):
            columns |= {f"{name}.{key}": [of.get(key) for of in pairs] for key in pairs[0]}
    return TextTable(table.path, columns, table.lines, table.unit, table.separator, table.along, table.goals)


def _column(table: TextTable, ours: str, theirs: str, roles: Sequence[str]) -> str:
    """Return the column that the user names."""
    if ours not in roles:
        raise InputError(f"columns: {ours!r} is not read. Use one of {', '.join(roles)}.{did_you_mean(ours, roles)}")
    if theirs in table.columns:
        return theirs
    alike = [name for name in table.columns if plain(name) == plain(theirs)]
    if len(alike) == 1:
        return alike[0]
    names = [name for name in table.columns if name]
    raise InputError(f"columns: {table.path} has no column {theirs!r}.{did_you_mean(theirs, names)} {_of(names)}")


def _parameter(table: TextTable, ours: str, names: Sequence[str]) -> str | None:
    """Return the column that holds a parameter by a name that others use, or by the last part of a longer one."""
    there = [
        name for name, cells in table.columns.items()
        if name not in table.along and not OF_METRICS.match(name) and any(cells)
    ]  # fmt: skip
    if ours == "seed":  # a number that no two runs share is no seed
        there = [name for name in there if len(set(table.columns[name])) < max(2, len(table.lines))]
    last = {name: plain(re.split(r"[./:]", name)[-1]) for name in there}
    for known in (ours, *names):
        for by_name in ({name: plain(name) for name in there}, last):
            found = [name for name in there if by_name[name] == known]
            if found:
                return _one_of(table, ours, found)
    return None


def _one_of(table: TextTable, ours: str, found: Sequence[str]) -> str:
    """Return the only column, or the only one that varies."""
    unlike: dict[tuple[str | None, ...], str] = {}
    for name in found:
        unlike.setdefault(tuple(table.columns[name]), name)
    varying = [name for cells, name in unlike.items() if len(set(cells)) > 1] or list(unlike.values())[:1]
    if len(varying) > 1:
        raise InputError(
            f"{table.path}: {' or '.join(varying)} may be {ours}. Say which one: --columns {ours}={varying[0]}."
        )
    return varying[0]


def _score(metrics: Mapping[str, Metric]) -> str | None:
    places = {name: place for name, of in metrics.items() if (place := of.place) is not None}
    return min(places, key=lambda name: places[name]) if places else None


def _missing(table: TextTable, missing: Sequence[str]) -> str:
    names = [name for name in table.columns if name]
    if names and not table.is_store and all(number(name) is not None for name in names[1:] or names):
        return (
            f"{table.path} has no column {missing[0]!r}: its first line holds numbers in place of names. Write a "
            f"heading such as batch_size,learning_rate,seed,score."
        )
    example = []
    for ours in missing:
        near = difflib.get_close_matches(ours, [plain(name) for name in names], 1, 0.6)
        example.append(f"{ours}={next((name for name in names if plain(name) in near), 'NAME')}")
    return (
        f"{table.path} has no column {listed([repr(name) for name in missing])}. {_of(names)} Say which columns hold "
        f"them: --columns {' '.join(example)}."
    )


def _of(names: Sequence[str]) -> str:
    return f"Its columns are {listed(names)}."


def listed(names: Sequence[str]) -> str:
    """Return names with commas, and *and* before the last.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "none"
