"""A study: a declared set of trials that answers one question; its validation, and the identity of a trial."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Self

from sgdscope.budget import Budget, Steps, TrialBudget, Unlimited, parse_budget
from sgdscope.converters import positive, real, several, shortened, shown, whole
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD, Optimizer, parse_optimizer
from sgdscope.records import WorkloadRecord
from sgdscope.schedules import HALVING, Schedule, parse_schedule
from sgdscope.seeds import MOST_SEEDS, Seeds, SeedsAt, parse_seeds, parse_seeds_at, united_at
from sgdscope.workloads.base import Workload, examples_in

# Part of every trial's identity: raised when a release changes the numbers that a trial gives.
NUMERICS_VERSION = 1

# In what numbers a gradient's products are taken.
COMPUTE_DTYPES = ("float32", "bfloat16")

# So many trials are named, searched and shown in minutes; beyond them memory ends first.
MOST_TRIALS = 1_000_000
# A seed is a number of 31 bits.
MOST_FIRST_SEED = 2**31 - 1 - MOST_SEEDS
# Learning rates are float32 in training: below and beyond these they would be 0 or infinite there.
LEAST_RATE, MOST_RATE = 2.0**-126, 2.0**127

# Fields in which a folder can grow; all others must be what they were.
# What an optimizer asks for that a workload need not have: the workload's field, and what it is of use for.
OF_THE_WORKLOAD = {
    "curvature": ("sample_targets", "targets that are drawn from the model"),
    "uniform_gradient": ("uniform_loss", "the loss against targets that are equally likely"),
}
EXTENSIBLE = ("workloads", "budgets", "optimizers", "batch_sizes", "learning_rates", "seeds", "seeds_at")


@dataclass(frozen=True)
class Cell:
    """The trials that differ in learning rate and seed alone."""

    workload: WorkloadRecord
    budget: TrialBudget
    optimizer: Optimizer
    batch_size: int

    @property
    def updates(self) -> int:
        """The number of parameter updates that the budget allows."""
        return self.budget.updates(self.batch_size, self.workload.examples[0])


@dataclass(frozen=True)
class Trial:
    """One training: everything that can change its numbers, and nothing else."""

    workload: WorkloadRecord
    optimizer: Optimizer
    batch_size: int
    learning_rate: float
    budget: TrialBudget
    seed: int
    microbatch_size: int
    devices_per_trial: int = 1
    compute_dtype: str = "float32"
    schedule: Schedule = HALVING

    @property
    def updates(self) -> int:
        """The number of parameter updates that the budget allows."""
        return self.budget.updates(self.batch_size, self.workload.examples[0])

    @cached_property
    def id(self) -> str:
        """A hash of the fields, 16 hexadecimal digits, the same on every machine."""
        return _trial_id(self)


def _trial_id(trial: Trial) -> str:
    identity: dict[str, Any] = {
        "numerics": NUMERICS_VERSION,
        "workload": [
            trial.workload.name,
            trial.workload.version,
            trial.workload.fields,
            trial.workload.data_sha256,
        ],
        "optimizer": str(trial.optimizer),
        "schedule": str(trial.schedule),
        "batch_size": trial.batch_size,
        "learning_rate": trial.learning_rate.hex(),
        "budget": str(trial.budget),
        "seed": trial.seed,
    }
    # What is as it usually is stays out, so that the ids of trials without it are what they were.
    if trial.microbatch_size != trial.batch_size:
        identity["microbatch_size"] = trial.microbatch_size
    if trial.devices_per_trial != 1:
        identity["devices_per_trial"] = trial.devices_per_trial
    if trial.compute_dtype != "float32":
        identity["compute_dtype"] = trial.compute_dtype
    if trial.workload.ghost_batch_size != 1:
        identity["ghost_batch_size"] = trial.workload.ghost_batch_size
    if trial.workload.unroll != 1:
        identity["streams"] = [trial.workload.unroll, trial.workload.evaluation_batch_size]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _test_examples(workload: Workload | WorkloadRecord) -> int:
    return workload.examples[2] if isinstance(workload, WorkloadRecord) else examples_in(workload.test)


@dataclass(frozen=True, kw_only=True)
class _Design:
    """The fields that a study shares with the declaration of it that its folder keeps."""

    name: str
    optimizers: Sequence[Optimizer] = (SGD(), SGD(momentum=0.9))
    batch_sizes: Sequence[int]
    budgets: Sequence[Budget]
    seeds: int | Seeds = 5
    learning_rates: Sequence[float] = ()
    evaluate_at: Sequence[float] = (0.5, 1.0)
    microbatch_size: int | None = None
    devices_per_trial: int = 1
    compute_dtype: str = "float32"
    score_margin: float | None = None
    noise_scale_at: Sequence[float] = ()
    sharpness_at: Sequence[float] = ()
    schedule: Schedule = HALVING
    first_seed: int = 0
    seeds_at: Sequence[SeedsAt] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.strip()):
            raise InputError(f"name: a study needs a name, not {shown(self.name)}.")
        self._set("seeds", Seeds.of(self.seeds).plain)
        self._set("first_seed", whole("first_seed", self.first_seed, least=0, most=MOST_FIRST_SEED))
        if self.microbatch_size is not None:
            self._set("microbatch_size", whole("microbatch_size", self.microbatch_size, least=1))
        self._set("devices_per_trial", whole("devices_per_trial", self.devices_per_trial, least=1))
        if not (isinstance(self.compute_dtype, str) and self.compute_dtype in COMPUTE_DTYPES):
            raise InputError(f"compute_dtype: {shown(self.compute_dtype)} is neither float32 nor bfloat16.")
        if self.score_margin is not None:
            self._set("score_margin", positive("score_margin", self.score_margin))
        budgets = several(self.budgets)
        for budget in budgets:
            if not isinstance(budget, Budget):
                raise InputError(
                    f"budgets: {shown(budget)} is not a budget; use Epochs(n), Steps(n) or Unlimited(first, ceiling)."
                )
        self._set("budgets", tuple(sorted(_unique("budgets", budgets), key=_budget_order)))
        optimizers = several(self.optimizers)
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise InputError(
                    f"optimizers: {shown(optimizer)} is not an optimizer; use SGD(), SGD(momentum=0.9), Adam() or "
                    f"AdamW()."
                )
        self._set("optimizers", _unique("optimizers", optimizers))
        if not isinstance(self.schedule, Schedule):
            raise InputError(
                f"schedule: {shown(self.schedule)} is not a schedule; use Halving(), Constant() or Cosine()."
            )
        sizes = _unique("batch_sizes", [whole("batch_sizes", size) for size in several(self.batch_sizes)])
        if min(sizes) < 1:
            raise InputError(f"batch_sizes: {shown(min(sizes))} is below 1.")
        self._set("batch_sizes", tuple(sorted(sizes)))
        rates = {_learning_rate(rate) for rate in several(self.learning_rates)}
        self._set("learning_rates", tuple(sorted(rates)))
        moments = _rising("evaluate_at", self.evaluate_at)
        if not moments or moments[-1] != 1.0 or moments[0] <= 0:
            raise InputError(f"evaluate_at: {shown(self.evaluate_at)} must rise within (0, 1] and end at 1.")
        self._set("evaluate_at", moments)
        for name in ("noise_scale_at", "sharpness_at"):
            self._set(name, _rising(name, getattr(self, name)))
        self._set_seeds_at(several(self.seeds_at))

    def _set_seeds_at(self, entries: Sequence[Any]) -> None:
        optimizers = dict.fromkeys(str(optimizer) for optimizer in (*self.optimizers, *self.trial_optimizers))
        for entry in entries:
            if not isinstance(entry, SeedsAt):
                raise InputError(f"seeds_at: {shown(entry)} is not a SeedsAt(optimizer, batch_size, seeds).")
            if entry.optimizer not in optimizers:
                known = ", ".join(optimizers)
                raise InputError(f"seeds_at: the study has no optimizer {shown(entry.optimizer)}. Use one of {known}.")
            if entry.batch_size not in self.batch_sizes:
                known = ", ".join(map(str, self.batch_sizes))
                raise InputError(f"seeds_at: the study has no batch size {entry.batch_size}. Use one of {known}.")
        self._set("seeds_at", united_at(entries))

    def _check_count(self, workloads: int) -> None:
        """Refuse a study of so many trials that naming them alone would take hours and all memory."""
        # A search tries some ten rates; as many as are given are tried otherwise.
        rates = len(self.learning_rates) or 10
        parts = {"workloads": workloads, "budgets": len(self.trial_budgets), "optimizers": len(self.optimizers)}
        parts |= {"batch sizes": len(self.batch_sizes), "learning rates": rates, "seeds": Seeds.of(self.seeds).search}
        if math.prod(parts.values()) > MOST_TRIALS:
            product = " × ".join(f"{count:,} {part}" for part, count in parts.items() if count > 1)
            raise InputError(f"seeds: {product} are more than the {MOST_TRIALS:,} trials that one study may have.")

    @property
    def trial_budgets(self) -> tuple[TrialBudget, ...]:
        """The budgets that a trial may have: an unlimited one stands for several numbers of epochs."""
        budgets: set[TrialBudget] = set()
        for budget in self.budgets:
            budgets |= set(budget.budgets if isinstance(budget, Unlimited) else (budget,))
        return tuple(sorted(budgets, key=_budget_order))

    @property
    def trial_optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizers that a trial may have: one whose coefficient has several values stands for several."""
        return tuple(dict.fromkeys(variant for optimizer in self.optimizers for variant in optimizer.variants))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _set_workloads(self, kind: type, given: Any) -> None:
        values = several(given)
        for workload in values:
            if not isinstance(workload, kind):
                raise InputError(f"workloads: {shown(workload)} is not a {kind.__name__}.")
        workloads = _unique("workloads", values)
        self._check_count(len(workloads))
        names = [workload.name for workload in workloads]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"workloads: two are called {twice!r}; give each a name of its own.")
        if self.score_margin is not None:
            wide = next((workload.name for workload in workloads if workload.score_name == "accuracy"), None)
            if wide is not None and self.score_margin >= 1:
                raise InputError(
                    f"score_margin: {self.score_margin!r} is as large as the range of an accuracy, the score of "
                    f"{wide!r}. Give a margin below 1."
                )
            for workload in workloads:
                examples = _test_examples(workload) if workload.score_name == "accuracy" else 0
                if examples and self.score_margin < 1 / examples:
                    raise InputError(
                        f"score_margin: {self.score_margin!r} is less than one of the {examples:,} test examples of "
                        f"{workload.name!r}. Give at least {math.ceil(1e6 / examples) / 1e6:g}."
                    )
        self._set("workloads", workloads)

    def _check_batch_sizes(self, examples: int, ghost_batch_size: int, unroll: int) -> None:
        for size in self.batch_sizes:
            if size % ghost_batch_size:
                raise InputError(
                    f"batch_sizes: {size} is not a multiple of the ghost batch size {ghost_batch_size}; leave it out, "
                    f"or lower the workload's ghost batch size for the whole study."
                )
            if size % unroll:
                raise InputError(
                    f"batch_sizes: {size} tokens are not a whole number of streams of {unroll} tokens; give a multiple "
                    f"of {unroll}, such as {max(unroll, round(size / unroll) * unroll)}."
                )
            if size > examples:
                raise InputError(
                    f"batch_sizes: {shown(size)} is larger than the training set; use at most its {examples} examples."
                )
            self._resolved_microbatch_size(size, ghost_batch_size * unroll, None)
            for budget in self.trial_budgets:
                budget.updates(size, examples)

    def _resolved_microbatch_size(self, batch_size: int, multiple: int, suits: int | None) -> int:
        """Return the largest part that divides a batch evenly, of at most ``microbatch_size`` examples for each device.

        It holds whole ghost batches for each of the devices that share a trial. Where the study does not say, it is the
        part nearest to what suits the workload.
        """
        devices, of_each = self.devices_per_trial, multiple
        multiple *= devices
        if batch_size % multiple:
            whole = f", each a multiple of {of_each}" if of_each > 1 else ""
            raise InputError(
                f"batch_sizes: {batch_size} is not a multiple of {multiple}, so that {devices} devices cannot share it "
                f"in equal parts{whole}; leave it out, or change devices_per_trial."
            )
        if self.microbatch_size is None and suits is not None:
            parts = (size for size in range(multiple, batch_size + 1, multiple) if batch_size % size == 0)
            return min(parts, key=lambda size: abs(math.log(size / (suits * devices))))
        most = min((self.microbatch_size or batch_size) * devices, batch_size)
        fitting = (size for size in range(most - most % multiple, 0, -multiple) if batch_size % size == 0)
        size = next(fitting, None)
        if size is None:
            raise InputError(
                f"microbatch_size: batch size {batch_size} has no part of at most {most} examples that divides it and "
                f"is a multiple of {multiple}; raise it, or change the batch size or devices_per_trial."
            )
        return size


@dataclass(frozen=True, kw_only=True)
class Declaration(_Design):
    """A study without its functions and data: what a folder keeps, enough to plan and to report."""

    workloads: Sequence[WorkloadRecord]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_workloads(WorkloadRecord, self.workloads)
        for record in self.workloads:
            self._check_batch_sizes(record.examples[0], record.ghost_batch_size, record.unroll)

    @property
    def cells(self) -> list[Cell]:
        """Every workload at every budget, optimizer and batch size; an unlimited budget may come to need fewer."""
        return [
            Cell(*key) for key in product(self.workloads, self.trial_budgets, self.trial_optimizers, self.batch_sizes)
        ]

    def seeds_of(self, cell: Cell) -> Seeds:
        """Return how many seeds the learning rates of a cell get."""
        seeds, names = Seeds.of(self.seeds), self.names_of(cell.optimizer) if self.seeds_at else ()
        for more in self.seeds_at:
            if more.optimizer in names and more.batch_size == cell.batch_size:
                seeds = seeds.united(more.seeds)
        return seeds

    def names_of(self, optimizer: Optimizer) -> tuple[str, ...]:
        """Return how tables call the optimizer of a trial: by itself, and as it was declared with several values."""
        declared = [str(other) for other in self.optimizers if optimizer in other.variants]
        return tuple(dict.fromkeys([str(optimizer), *declared]))

    def microbatch_sizes(self, workload: WorkloadRecord) -> dict[int, int]:
        """Return the examples of one forward pass of a workload, for each batch size."""
        multiple, suits = workload.batch_multiple, workload.microbatch_size
        return {size: self._resolved_microbatch_size(size, multiple, suits) for size in self.batch_sizes}

    def trial(
        self,
        optimizer: Optimizer,
        batch_size: int,
        learning_rate: float,
        seed: int,
        workload: WorkloadRecord | None = None,
        budget: TrialBudget | None = None,
    ) -> Trial:
        """Return one trial. Default: of the first workload and budget."""
        workload, budget = workload or self.workloads[0], budget or self.trial_budgets[0]
        return Trial(
            workload,
            optimizer,
            batch_size,
            learning_rate,
            budget,
            seed,
            microbatch_size=self._resolved_microbatch_size(
                batch_size, workload.batch_multiple, workload.microbatch_size
            ),
            devices_per_trial=self.devices_per_trial,
            compute_dtype=self.compute_dtype,
            schedule=self.schedule,
        )

    def to_json(self) -> str:
        """Return the declaration as JSON text, the form in which a folder keeps it."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain |= {
            "optimizers": [optimizer.declared for optimizer in self.optimizers],
            "budgets": [str(budget) for budget in self.budgets],
            "workloads": [_plain_record(workload) for workload in self.workloads],
            "numerics": NUMERICS_VERSION,
        }
        # What is as it usually is stays out, so that the files of studies without it are what they were.
        if self.schedule == HALVING:
            del plain["schedule"]
        else:
            plain["schedule"] = str(self.schedule)
        if not isinstance(self.seeds, int):
            plain["seeds"] = str(self.seeds)
        for name in ("first_seed", "sharpness_at"):
            if not getattr(self, name):
                del plain[name]
        if self.seeds_at:
            plain["seeds_at"] = [str(more) for more in self.seeds_at]
        else:
            del plain["seeds_at"]
        return json.dumps(plain, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote; raises ValueError, KeyError or TypeError on anything else."""
        plain = json.loads(text)
        if plain.pop("numerics") != NUMERICS_VERSION:
            raise InputError("the folder was written by a version of sgdscope that gives other numbers.")
        plain["optimizers"] = [parse_optimizer(text) for text in plain["optimizers"]]
        plain["schedule"] = parse_schedule(plain.get("schedule", "halving"))
        plain["budgets"] = [parse_budget(text) for text in plain["budgets"]]
        plain["workloads"] = [_read_record(record) for record in plain["workloads"]]
        plain["seeds"] = parse_seeds(str(plain["seeds"]))
        plain["seeds_at"] = [parse_seeds_at(text) for text in plain.get("seeds_at", ())]
        return cls(**plain)

    def united(self, other: Declaration) -> Declaration:
        """Return ``other`` with what it leaves out of this study's extensible fields, and with a margin if it has none.

        Args:
            other: the study that is asked for. Its other fields, and its workloads of the same names, stay as they are.

        Raises:
            InputError: If the two do not go together, as a batch size larger than a workload's training set.
        """
        records = {record.name: record for record in (*self.workloads, *other.workloads)}
        rates = other.learning_rates
        if self.learning_rates and rates:  # where either is empty its rates are searched, which cannot be mixed
            rates = _both(self.learning_rates, rates)
        return replace(
            other,
            workloads=tuple(records.values()),
            budgets=_both(self.budgets, other.budgets),
            optimizers=_both_optimizers(self.optimizers, other.optimizers),
            batch_sizes=_both(self.batch_sizes, other.batch_sizes),
            learning_rates=rates,
            seeds=Seeds.of(self.seeds).united(Seeds.of(other.seeds)),
            seeds_at=(*self.seeds_at, *other.seeds_at),
            score_margin=self.score_margin if other.score_margin is None else other.score_margin,
        )

    def beyond(self, other: Declaration) -> dict[str, str]:
        """Say, one phrase a field by its name, what this study has in extensible fields and ``other`` leaves out."""
        said = {}
        for name in EXTENSIBLE:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "seeds":
                if Seeds.of(mine).exceeds(Seeds.of(theirs)):
                    said[name] = f"{mine} seeds, of which {theirs} are asked for"
                continue
            if name == "seeds_at":
                if kept := [str(entry) for entry in mine if entry not in theirs]:
                    said[name] = f"more seeds at {', '.join(kept)}"
                continue
            if name == "workloads":
                mine, theirs = ([record.name for record in records] for records in (mine, theirs))
            if name == "optimizers":
                mine = [_widest(optimizer, theirs) for optimizer in mine]
            more = tuple(value for value in mine if value not in theirs)
            if more and theirs:
                said[name] = f"{name} {_plain(more)}"
        return said

    def differences(self, other: Declaration, trained: Collection[tuple[str, int]] | None = None) -> list[str]:
        """Say, one phrase a field, where ``other`` is neither this study nor an extension of it.

        Args:
            other: the study that is asked for.
            trained: The workloads' names and batch sizes that have trials. Only there must the microbatch size be what
                it was. Default: all.
        """
        said = []
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if mine == theirs or f.name == "score_margin":  # on which verdicts depend, and no trial
                continue
            smaller, larger = mine, theirs
            if f.name == "optimizers":  # a coefficient may have further values
                smaller, larger = self.trial_optimizers, other.trial_optimizers
            if f.name == "workloads":
                said += self._workload_differences(other)
            elif f.name == "microbatch_size":
                continue  # what trials have of it counts, to which workloads contribute
            elif f.name == "seeds_at":
                if united_at(mine, theirs) != theirs:
                    said.append(f"seeds_at (there {_plain(mine)}, here {_plain(theirs)})")
            elif f.name == "seeds":
                if Seeds.of(mine).exceeds(Seeds.of(theirs)):
                    said.append(f"seeds (there {mine}, here only {theirs})")
            elif f.name in EXTENSIBLE and set(smaller) <= set(larger) and bool(mine) == bool(theirs):
                continue
            else:
                said.append(f"{f.name} (there {_plain(mine)}, here {_plain(theirs)})")
        return said + self._microbatch_differences(other, trained)

    def _workload_differences(self, other: Declaration) -> list[str]:
        mine, theirs = ({record.name: record for record in d.workloads} for d in (self, other))
        if not mine.keys() <= theirs.keys():
            return [f"workloads (there {_plain(tuple(mine))}, here {_plain(tuple(theirs))})"]
        return [
            f"workload {name}'s {part.name} (there {getattr(mine[name], part.name)!r}, "
            f"here {getattr(theirs[name], part.name)!r})"
            for name in mine
            for part in fields(mine[name])
            if part.name != "microbatch_size" and getattr(mine[name], part.name) != getattr(theirs[name], part.name)
        ]

    def _microbatch_differences(self, other: Declaration, trained: Collection[tuple[str, int]] | None) -> list[str]:
        here = {record.name: other.microbatch_sizes(record) for record in other.workloads}
        said = []
        for record in self.workloads:
            for size, there in self.microbatch_sizes(record).items():
                if trained is not None and (record.name, size) not in trained:
                    continue
                if here.get(record.name, {}).get(size, there) != there:
                    said.append(
                        f"the microbatch size of batch size {size} (there {there}, here {here[record.name][size]})"
                    )
        return list(dict.fromkeys(said))


def _both(mine: Sequence[Any], theirs: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*mine, *theirs]))


def _both_optimizers(mine: Sequence[Optimizer], theirs: Sequence[Optimizer]) -> tuple[Optimizer, ...]:
    """Return the optimizers of both; of equal ones theirs, since only the user's own can be built."""
    both, own = _both(mine, theirs), {optimizer: optimizer for optimizer in theirs}
    widest = [_widest(optimizer, both) for optimizer in both]
    return tuple(dict.fromkeys(own.get(optimizer, optimizer) for optimizer in widest))


def _widest(optimizer: Optimizer, among: Sequence[Optimizer]) -> Optimizer:
    """Return the one that searches all values that this one does and more, or the optimizer itself."""
    values = set(optimizer.variants)
    wider = (other for other in among if optimizer.searched and values < set(other.variants))
    return max(wider, key=lambda other: len(other.variants), default=optimizer)


def _plain_record(record: WorkloadRecord) -> dict[str, Any]:
    plain = asdict(record)
    if record.microbatch_size is None:
        del plain["microbatch_size"]
    return plain


def _read_record(plain: dict[str, Any]) -> WorkloadRecord:
    plain["fields"] = tuple((key, value) for key, value in plain["fields"])
    plain["examples"] = tuple(plain["examples"])
    return WorkloadRecord(**plain)


@dataclass(frozen=True, kw_only=True, eq=False)
class Study(_Design):
    """Declare the trials that answer one question: every combination of the fields.

    ``workloads``, ``optimizers``, ``batch_sizes`` and ``budgets`` take one value or several. Each combination of their
    values is a cell.

    Args:
        name: The name of the study in its folder and report.
        workloads: Models with their data. Each workload has a name of its own.
        optimizers: Update rules. Default: SGD, and SGD with momentum 0.9.
        batch_sizes: Examples per parameter update, each between 1 and the size of the training split.
        budgets: The compute budget of a trial: ``Epochs(n)``, ``Steps(n)`` or ``Unlimited(first, ceiling)``.
        seeds: The number of seeds. A seed gives the same initialization in all cells, and the same order of examples
            at one batch size, so that differences are paired by seed. A whole number is for every learning rate;
            ``Seeds(search=5, near_best=10, best=30)`` spends more of them where the question is. Default: 5.
        learning_rates: Initial learning rates to try. Default: none. The rates are then searched in factors of 2 until
            the optimum is bracketed for the score and for the training loss, and around the optimum in factors of √2.
        evaluate_at: The fractions of the budget at which the whole splits are evaluated. The last is 1.
            Default: (0.5, 1).
        microbatch_size: The most examples in a device's forward pass, where a batch does not fit in memory. A batch is
            cut into the largest equal parts that fit, and their gradients are averaged. Default: on a CPU what the
            workload says to suit its cache, else the whole batch.
        devices_per_trial: The number of devices that share each batch of a trial. Default: 1.
        compute_dtype: The type of the matrix products and convolutions in gradients, ``float32`` or ``bfloat16``.
            Everything else stays in float32. bfloat16 is for GPUs, and slower on a CPU. Default: ``float32``.
        score_margin: δ, the largest difference in score to ignore, in units of the score. It changes no trial. For an
            accuracy it is at least one test example. Default: for an accuracy the larger of two test examples and 2 %
            of the errors, at most half a point; for another score 2 % of it.
        noise_scale_at: The fractions of the budget at which the gradient noise scale is estimated. 0 is before the
            first update. The estimates take time and change no trial. Default: never.
        sharpness_at: The fractions of the budget at which the sharpness, the largest eigenvalue of the Hessian of the
            training loss, is estimated. The estimates take time and change no trial. Default: never.
        schedule: How the learning rate changes along the budget: ``Halving()``, ``Constant()``, ``Cosine()`` or
            ``WarmupStableDecay(warmup, decay)``. Default: ``Halving()``.
        first_seed: The number of the first seed. Studies with other first seeds, such as 0 and 1,000, draw different
            initializations and orders of examples. Default: 0.
        seeds_at: More seeds at single optimizers and batch sizes, each a ``SeedsAt(optimizer, batch_size, seeds)``.

    Raises:
        InputError: If a field has a wrong type or value. Nothing has been trained then.

    >>> import sgdscope as sg
    >>> study = sg.Study(
    ...     name="two-sizes", workloads=sg.workloads.digits(), batch_sizes=(256, 1024), budgets=sg.Epochs(5)
    ... )
    >>> study.batch_sizes, study.seeds
    ((256, 1024), 5)
    """

    workloads: Sequence[Workload]

    if TYPE_CHECKING:  # fields hold several values, and a single one is taken for them

        def __init__(
            self,
            *,
            name: str,
            workloads: Workload | Iterable[Workload],
            batch_sizes: int | Iterable[int],
            budgets: Budget | Iterable[Budget],
            optimizers: Optimizer | Iterable[Optimizer] = ...,
            seeds: int | Seeds = ...,
            learning_rates: float | Iterable[float] = ...,
            evaluate_at: float | Iterable[float] = ...,
            microbatch_size: int | None = ...,
            devices_per_trial: int = ...,
            compute_dtype: str = ...,
            score_margin: float | None = ...,
            noise_scale_at: float | Iterable[float] = ...,
            sharpness_at: float | Iterable[float] = ...,
            schedule: Schedule = ...,
            first_seed: int = ...,
            seeds_at: SeedsAt | Iterable[SeedsAt] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set_workloads(Workload, self.workloads)
        for workload in self.workloads:
            if self.noise_scale_at and workload.streams is not None:
                raise InputError(
                    f"noise_scale_at: workload {workload.name!r} reads streams, whose batches depend on what was read "
                    f"before and so have no noise of single examples; leave it out."
                )
            if self.noise_scale_at and workload.feed is not None:
                raise InputError(
                    f"noise_scale_at: the examples of workload {workload.name!r} are read by the host, and of such the "
                    f"gradient noise is not estimated; leave it out."
                )
            if self.sharpness_at and (workload.streams is not None or workload.feed is not None):
                how = "reads streams" if workload.streams is not None else "reads examples from the host"
                raise InputError(
                    f"sharpness_at: workload {workload.name!r} {how}, and of such the sharpness is not estimated; "
                    f"leave it out."
                )
            for optimizer in self.optimizers:
                beyond = optimizer.asks if workload.feed is not None else optimizer.asks - {"gradient"}
                if beyond and (workload.feed is not None or workload.streams is not None):
                    raise InputError(
                        f"optimizers: {optimizer} needs more than the gradient of each batch, which workload "
                        f"{workload.name!r} cannot give since its examples are not all on the device; leave it out."
                    )
                for asked, (name, what) in OF_THE_WORKLOAD.items():
                    if asked in optimizer.asks and getattr(workload, name) is None:
                        raise InputError(
                            f"optimizers: {optimizer} needs {what}, and workload {workload.name!r} does not say how. "
                            f"Give the workload {name}, or leave it out."
                        )
            self._check_batch_sizes(examples_in(workload.train), workload.ghost_batch_size, workload.unroll)

    def declaration(self) -> Declaration:
        """Return what identifies this study; hashes the workloads' data."""
        shared = {f.name: getattr(self, f.name) for f in fields(_Design)}
        return Declaration(workloads=[workload.record() for workload in self.workloads], **shared)

    def extended_to(self, declaration: Declaration) -> Study:
        """Return this study, with its own workloads, at all budgets, optimizers and the like of a declaration."""
        return self.changed({name: getattr(declaration, name) for name in EXTENSIBLE if name != "workloads"})

    def changed(self, changes: Mapping[str, Any]) -> Study:
        """Return this study with other values for some of its fields."""
        return replace(self, **changes)


def _budget_order(budget: Budget) -> tuple[int, float, float, float]:
    """Epochs, then steps, each from the smallest; what has no limit comes last."""
    if isinstance(budget, Unlimited):
        return 2, budget.first, budget.ceiling, budget.loss_floor or 0.0
    return int(isinstance(budget, Steps)), budget.n, 0.0, 0.0


def _unique(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        raise InputError(f"{name}: give at least one.")
    if len(set(values)) != len(values):
        raise InputError(f"{name}: {shortened(_plain(tuple(values)))} names one twice.")
    return tuple(values)


def _learning_rate(value: Any) -> float:
    rate = positive("learning_rates", value)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise InputError(
            f"learning_rates: {shown(value)} is beyond what training can hold; use {LEAST_RATE:.1e} to {MOST_RATE:.1e}."
        )
    return rate


def _rising(name: str, values: Any) -> tuple[float, ...]:
    said = InputError(f"{name}: {shown(values)} must be fractions of the budget that rise within [0, 1].")
    try:
        fractions = tuple(real(name, part) for part in several(values))
    except InputError:
        raise said from None
    if not all(0 <= part <= 1 for part in fractions) or sorted(set(fractions)) != list(fractions):
        raise said
    return fractions


def _plain(value: Any) -> str:
    return ", ".join(str(v) for v in value) or "none" if isinstance(value, tuple) else str(value)
