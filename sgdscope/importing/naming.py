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
    "optimizer": (
        *("optim", "opt", "optimizer_name", "optimizer_type", "optimizer_class", "optim_name", "optim_type"),
        *("optimizer_target", "optim_target", "optimizer_class_path"),
    ),
    "momentum": ("sgd_momentum", "mom"),
    "status": ("state",),
}
NUMBERS = ("batch_size", "learning_rate", "momentum")
# The batch of an update, where other columns hold a part of it.
WHOLE_BATCH = ("effective", "global", "total")
# Names that mean something else in most places: they count only beside the optimizer, or beside nothing.
VAGUE = frozenset(("batch", "rate", "eta", "step_size", "stepsize", "repeat", "repetition", "run", "trial", "state"))
# Where parameters of training stand.
OF_TRAINING = frozenset(("train", "training", "trainer", "fit"))
OF_OPTIMIZER = frozenset(("optim", "optimizer", "optimizers", "optimiser", "opt", "sgd", "solver"))
OF_DATA = frozenset(("data", "dataset", "datamodule", "dm", "loader", "dataloader", "dataloaders", "sampler", "input"))
# Where parameters of the same names stand that are not those of training: of evaluation, of layers that normalize, of
# averages of weights, of schedules and of augmentation.
OF_OTHERS = frozenset(
    (
        *("eval", "evaluation", "evaluator", "val", "valid", "validation", "validate", "test", "testing", "dev"),
        *("infer", "inference", "predict", "prediction", "generation", "sampling", "probe", "knn", "benchmark"),
        *("bn", "batchnorm", "norm", "norms", "normalization", "normalisation", "layernorm", "groupnorm"),
        *("ema", "swa", "teacher", "averaging", "queue", "moco", "byol"),
        *("scheduler", "schedule", "sched", "warmup", "decay", "dropout", "drop", "augment", "augmentation", "noise"),
        *("profiler", "logger", "logging", "checkpoint", "early"),
    )
)
# Names of scores. Larger is better of the first two kinds, smaller of the third; of the last it is not known.
ACCURACIES = (
    *("accuracy", "acc", "top1", "top_1", "acc1", "acc_1", "top1_acc", "top1_accuracy", "top_1_accuracy"),
    *("balanced_accuracy", "top5", "top_5", "acc5", "acc_5", "top5_acc", "top5_accuracy", "top_5_accuracy"),
    *("accuracy_top1", "accuracy_top_1", "accuracy_top5", "sparse_categorical_accuracy", "categorical_accuracy"),
    *("binary_accuracy", "exact_match", "em"),
)
LARGER = (
    *ACCURACIES,
    *("f1", "f1_score", "f1_macro", "macro_f1", "f1_micro", "micro_f1", "f1_weighted", "auc", "auroc", "roc_auc"),
    *("auprc", "pr_auc", "average_precision", "ap", "r2", "r2_score", "r_squared", "explained_variance", "bleu"),
    *("sacrebleu", "chrf", "meteor", "rouge", "rouge1", "rouge2", "rouge_l", "rougel", "cider", "map", "map50"),
    *("miou", "iou", "mean_iou", "jaccard", "dice", "dice_score", "psnr", "ssim", "ms_ssim", "snr", "sdr", "si_sdr"),
    *("si_snr", "pesq", "stoi", "precision", "recall", "sensitivity", "specificity", "mcc", "matthews_corrcoef"),
    *("kappa", "cohen_kappa", "pearson", "pearsonr", "spearman", "spearmanr", "ndcg", "mrr", "hit_rate", "recall_at_k"),
    *("inception_score", "log_likelihood", "loglik", "elbo", "reward", "return", "episode_reward", "episode_return"),
    *("ep_rew", "win_rate", "success_rate"),
)
SMALLER = (
    *("error", "err", "error_rate", "perplexity", "ppl", "loss", "cross_entropy", "ce", "nll", "mse", "rmse", "mae"),
    *("wer", "cer", "ter", "bpc", "bpb", "bpd", "bits_per_character", "bits_per_byte", "bits_per_dim", "fid", "kid"),
    *("lpips", "mape", "smape", "msle", "rmsle", "brier", "brier_score", "ece", "eer", "log_loss", "logloss", "kl"),
    *("kl_divergence", "mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "regret", "chamfer"),
    *("neg_log_likelihood", "negative_log_likelihood"),
)
UNKNOWN = ("value", "values", "score", "objective", "metric", "result", "target")
# Within a longer name: of what is smaller the better, and of what is larger the better.
MINIMIZED = re.compile(
    r"loss|error|perplexity|entropy|divergence|(?<![a-z])(ppl|nll|err|m[as]e|rmse|mape|wer|cer|fid|bp[cbd]|regret)(?![a-z])"
)
MAXIMIZED = re.compile(
    r"accuracy|likelihood|(?<![a-z])(acc|top_?[15]|f1|auc|auroc|r2|bleu|m?iou|dice|psnr|ssim|snr|mcc|kappa|elbo|reward|return)"
    r"(?![a-z])"
)
NEGATED = re.compile(r"^(neg|negative|minus)_")
SPLITS = {
    **dict.fromkeys(("test", "testing", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("train", "training", "trn"), "train"),
}
# Words beside a metric that say nothing of which it is; the best along training is taken only where the last is not.
BESIDE = ("final", "last", "end", "epoch", "mean", "avg", "step", "metrics")
FLATTERED = ("best", "max", "min")
# Where tools put parameters and metrics.
PLACES = re.compile(
    r"^(params?|config|hparams?|hparam|hyperparameters?|user_attrs?|metrics?|summary|results?|args|cfg|tags|info|overrides"
    r"|data(?=_(params|metrics|tags)))_(?=.)"
)
OF_PARAMETERS = re.compile(r"^(params?|config|hparams|hyperparameters?|args|cfg|overrides|info)[._/]", re.IGNORECASE)
OF_METRICS = re.compile(r"^(metrics?|summary|results?)[./]", re.IGNORECASE)
MOST_SHOWN = 3
# Means over runs, and what stands beside them.
MEAN = re.compile(r"(?<![a-z])(mean|avg|average)(?![a-z])")
SPREADS = ("std", "stdev", "stddev", "sd", "stderr", "sem", "se", "var", "ci")
PAIR = re.compile(r"([A-Za-z_][\w.]*?)=(.*?)(?=[,;&/ \-_]+[A-Za-z_][\w.]*=|[,;&/ ]|$)")


class Candidate(NamedTuple):
    """A column that may hold a parameter, the likeliest being first.

    Args:
        words: Whether it holds words where numbers are needed.
        part: Whether another column may hold the whole of it.
        fixed: Whether all runs have the same.
        level: Where the column stands, 0 being the likeliest place.
        place: Where its name stands among those that are known.
        column: Its name.
    """

    words: bool
    part: bool
    fixed: bool
    level: int
    place: int
    column: str


class Metric(NamedTuple):
    """What a column's name says of a metric: ``split`` is empty where none is named, ``best`` if along training."""

    name: str
    split: str
    best: bool

    @property
    def place(self) -> tuple[int, int, int, int] | None:
        """Where it stands among those that may be the score, the first being first; None where it cannot be."""
        bare = NEGATED.sub("", self.name)
        kinds = [(LARGER, 0), (UNKNOWN, 1), (SMALLER, 2)]
        kind = next(
            ((rank, names.index(name)) for name in (self.name, bare) for names, rank in kinds if name in names), None
        )
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
    words = plain(name).split("_")
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = [word for word in words if word not in SPLITS and word not in FLATTERED]
    if NEGATED.sub("", "_".join(rest)) not in (*LARGER, *SMALLER):  # as mean_squared_error is
        rest = [word for word in rest if word not in BESIDE] or rest
    return Metric("_".join(rest), splits[0] if splits else "", any(word in FLATTERED for word in words))


def named(table: TextTable, roles: Sequence[str], chosen: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return which column of a table holds what, the name of each by ours; and what else might have been meant.

    Names that are ours are taken first, but for ``chosen``; then those of :data:`CALLED`, and of scores those of a
    test set before those of a validation set. A parameter is never taken from what was measured along training, nor
    from a place that speaks of evaluation, normalization or schedules.

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
    if "status" not in found and "state" in found:  # a tool's word on its run goes before what the run says of itself
        found["status"] = found["state"]
    doubts = []
    for ours, names in CALLED.items():
        if ours in chosen or not (candidates := _candidates(table, ours, names)):
            continue
        if ours not in found:
            found[ours] = _first(table, ours, candidates)
        elif ours == "batch_size" and not candidates[0].part:
            found[ours] = candidates[0].column  # beside a batch size that may be a part of it
        taken = [candidate for candidate in candidates if candidate.column == found[ours]]
        doubts += [text for first in taken for text in _doubt(table, ours, first, candidates)]
    metrics = {name: metric(name) for name in table.columns if name not in found.values() and _measured(table, name)}
    if "score" not in found and (scores := _scores(table, metrics)):
        found["score"] = scores[0]
        of = metrics[scores[0]]
        if of.split == "test" and "validation_score" not in found:
            alike = [other for other, its in metrics.items() if its == of._replace(split="validation")]
            found |= {"validation_score": alike[0]} if alike else {}
        doubts += _or(table, "score", scores[0], [name for name in scores[1:] if _alike(metrics[name], of)])
    doubts += _means(table, found.get("score", ""))
    if "train_loss" not in found:
        losses = [name for name, of in metrics.items() if (of.name, of.split, of.best) == ("loss", "train", False)]
        found |= {"train_loss": losses[0]} if losses else {}
    missing = [ours for ours in NEEDED if ours not in found]
    if missing:
        raise InputError(_missing(table, missing))
    return found, doubts


def goal_of(name: str) -> str:
    """Return whether a score of this name is to be maximized or minimized; empty where the name does not say.

    >>> goal_of("metrics.test/loss"), goal_of("top1_err"), goal_of("neg_mean_squared_error"), goal_of("score")
    ('minimize', 'minimize', 'maximize', '')
    """
    of = metric(name).name
    if of in LARGER:
        return "maximize"
    if of in SMALLER:
        return "minimize"
    if NEGATED.match(of):
        return {"minimize": "maximize", "maximize": "minimize"}.get(goal_of(NEGATED.sub("", of)), "")
    if MINIMIZED.search(of):
        return "minimize"
    return "maximize" if MAXIMIZED.search(of) else ""


def is_accuracy(name: str) -> bool:
    """Return whether a score of this name is an accuracy, or may be one as far as its name says.

    >>> is_accuracy("cifar10/val_acc"), is_accuracy("score"), is_accuracy("psnr")
    (True, True, False)
    """
    of = metric(name).name
    return (
        of in (*ACCURACIES, *UNKNOWN, "") or re.search(r"accuracy|(?<![a-z])(acc|top_?[15])(?![a-z])", of) is not None
    )


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


def _candidates(table: TextTable, ours: str, names: Sequence[str]) -> list[Candidate]:
    """Return the columns that may hold a parameter by their names or the last parts of them, the likeliest first.

    Those that vary go before those that are fixed, and the place where a column stands counts before its name.
    """
    found = []
    for column, cells in table.columns.items():
        if column in table.along or OF_METRICS.match(column) or not any(cells):
            continue
        if ours == "seed" and len(set(cells)) >= max(2, len(table.lines)):
            continue  # a number that no two runs share is no seed
        if (match := _match(column, ours, (ours, *names))) is not None:
            level, name = match
            words = ours in NUMBERS and not any(number(text or "", True) is not None for text in cells)
            part, fixed = not name.startswith(WHOLE_BATCH), len(set(cells)) == 1
            found.append(Candidate(words, part, fixed, level, (ours, *names).index(name), column))
    return sorted(found)


def _match(column: str, ours: str, names: Sequence[str]) -> tuple[int, str] | None:
    """Return by which name a column may hold a parameter, and where it stands, 0 being the likeliest place."""
    parts = [plain(part) for part in re.split(r"[./:]|__", column)]
    if len(parts) > 1 and parts[-1] == "value":  # as W&B keeps its configuration
        parts.pop()
    matches = []
    for start in range(len(parts)):
        before, name = [word for part in parts[:start] for word in part.split("_")], plain("_".join(parts[start:]))
        while name not in names and (first := name.partition("_"))[0] in OF_TRAINING | OF_OPTIMIZER and first[2]:
            before, name = [*before, first[0]], first[2]
        level = _level([word for word in before if not PLACES.match(f"{word}_x")], ours)
        if name in names and level is not None and (level < 3 or name not in VAGUE):
            matches.append((3 if name in VAGUE else level, name))
    return min(matches, key=lambda match: (match[0], names.index(match[1])), default=None)


def _level(words: Sequence[str], ours: str) -> int | None:
    """Return how likely parameters of training stand at a place, 0 being the likeliest; None where they do not."""
    stems = {re.sub(r"\d+d?$", "", word) for word in words}
    right = OF_TRAINING if ours == "batch_size" else OF_OPTIMIZER
    if stems & OF_OTHERS:
        return None
    if not stems or stems & right:
        return 1 if stems else 0
    return 2 if stems & (OF_TRAINING | OF_OPTIMIZER) else 4 if stems & OF_DATA else 3


def _first(table: TextTable, ours: str, candidates: Sequence[Candidate]) -> str:
    """Return the likeliest candidate; refuse where another one, which differs, stands level with it."""
    first = candidates[0]
    level = [
        of.column for of in candidates if of[:-1] == first[:-1] and not _same(table, ours, of.column, first.column)
    ]
    if level and not first.fixed:
        raise InputError(
            f"{table.path}: {' or '.join([first.column, *level])} may be {ours}. Say which one: --columns "
            f"{ours}={first.column}."
        )
    return first.column


def _doubt(table: TextTable, ours: str, first: Candidate, others: Sequence[Candidate]) -> list[str]:
    """Say which other columns may hold a parameter, where its place does not decide it."""
    if not first.part and ours == "batch_size":
        return []
    near = [
        of.column
        for of in others
        if of.level < first.level or (of.level <= max(2, first.level) and (of.words or not of.fixed))
    ]
    return _or(table, ours, first.column, near)


def _or(table: TextTable, ours: str, first: str, others: Sequence[str]) -> list[str]:
    """Say which other columns may be meant, of those that differ from the first."""
    unlike: dict[tuple[str | None, ...], str] = {}
    for name in others:
        if any(table.columns[name]) and not _same(table, ours, name, first):
            unlike.setdefault(tuple(table.columns[name]), name)
    if not unlike:
        return []
    shown = list(unlike.values())[:MOST_SHOWN]
    where = "the column of this name" if first == ours else first
    return [
        f"{ours} is read from {where}. {listed(shown)} may be meant as well: choose with --columns {ours}={shown[0]}."
    ]


def _same(table: TextTable, ours: str, mine: str, theirs: str) -> bool:
    """Return whether two columns say the same, names in other words."""
    a, b = table.columns[mine], table.columns[theirs]
    return a == b or (ours in ("optimizer", "seed") and len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True))))


def _measured(table: TextTable, name: str) -> bool:
    """Return whether a column may hold what was measured of each run: numbers or nothing, and no parameters."""
    texts = [text for text in table.columns[name] if text is not None]
    if name not in table.along and OF_PARAMETERS.match(name):
        return False
    return all(number(text) is not None or number(text, True) is not None for text in texts)


def _scores(table: TextTable, metrics: Mapping[str, Metric]) -> list[str]:
    """Return the columns that may be the score, the likeliest first; measures that never vary are the last."""
    places = {name: place for name, of in metrics.items() if (place := of.place) is not None}
    return sorted(places, key=lambda name: (places[name][0] > 0 and len(set(table.columns[name])) == 1, places[name]))


def _means(table: TextTable, score: str) -> list[str]:
    """Say where a score seems to be a mean over runs, whose spread stands beside it."""
    spreads = {re.sub(MEAN, spread, plain(score)) for spread in SPREADS} if MEAN.search(plain(score)) else set()
    beside = [name for name in table.columns if plain(name) in spreads]
    return [
        f"{score} may be a mean over runs, since {name} stands beside it. Give one row for each run, as "
        f"intervals are computed from them."
        for name in beside[:1]
    ]


def _alike(mine: Metric, theirs: Metric) -> bool:
    """Return whether nothing but the names of two metrics says which one is the score."""
    return mine.place is not None and theirs.place is not None and mine.place[:3] == theirs.place[:3]


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
