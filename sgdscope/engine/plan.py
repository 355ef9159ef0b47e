"""Trials into packs, and what a study will cost before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import TYPE_CHECKING

import numpy as np

from sgdscope.budget import TrialBudget, Unlimited
from sgdscope.engine.search import Search
from sgdscope.optimizers import SGD, Optimizer
from sgdscope.records import SPLITS, WorkloadRecord
from sgdscope.schedules import HALVING
from sgdscope.seeds import Seeds
from sgdscope.study import Cell, Declaration, Study, Trial
from sgdscope.workloads.base import examples_in

if TYPE_CHECKING:
    from sgdscope.training.backend import Trainer
    from sgdscope.training.step import Kind
    from sgdscope.training.traced import TracedWorkload

# What a trial takes beside updates and evaluations: searching, committing, tables and report (results/overhead).
SECONDS_BESIDE = 1.6e-3
# For how many finished cells what other studies needed counts, where a study's own cells are still few.
SEEN_AS_CELLS = 4
# An update that takes longer is not timed beforehand.
MOST_SECONDS_PROBED = 2.0
PLAIN = SGD()
# Microbatch sizes that may suit a processor's cache. One is proposed where an update takes long enough to matter, and
# where it is so many times as fast: a probe on a busy machine is off by less.
MICROBATCH_SIZES = (16, 64)
SECONDS_THAT_MATTER, FASTER = 0.02, 1.3


def packs(trials: Sequence[Trial], room: Callable[[Trial], int]) -> Iterator[list[Trial]]:
    """Yield packs of one batch size, number of updates and update rule, each at most as long as there is room.

    For how many there is room is asked only when a pack of that kind is next, since trials so far tell.
    """

    def shape(trial: Trial) -> tuple[int, int, str]:
        return -trial.batch_size, trial.updates, trial.optimizer.family

    for _, members in groupby(sorted(trials, key=shape), key=shape):
        same = list(members)
        most = room(same[0])
        yield from (same[i : i + most] for i in range(0, len(same), most))


@dataclass(frozen=True)
class Plan:
    """What remains to be trained: counts are of what is expected where learning rates are searched.

    ``operations`` are the floating-point operations of matrix products and convolutions, evaluation included;
    ``bytes`` what the host reads; ``expansion`` is the study written out, and ``proposals`` say what would
    train faster.
    """

    cells: int
    trials: int
    updates: int
    examples: int
    operations: int
    seconds: float | None
    bytes: int = 0
    expansion: str = ""
    proposals: tuple[str, ...] = ()


class Costs:
    """What updates and evaluations cost: counted operations, and seconds as far as anything has been timed.

    Seconds per update of a rule follow a line a + b·B through what has been timed of it. A rule that has not been timed
    is taken to be as much slower than the first one as it has more operations. What was probed beforehand is scaled by
    how the last pack compared with it, since a machine is rarely as busy as it was a moment ago.

    Args:
        traced: the workload whose operations are counted.
        evaluations: the number of evaluations of a trial.
        noise_scales: how many times its gradient noise is estimated.
        sharpnesses: how many times its sharpness is estimated.
    """

    def __init__(self, traced: TracedWorkload, evaluations: int, noise_scales: int = 0, sharpnesses: int = 0) -> None:
        from sgdscope.training.noise_scale import small_batches
        from sgdscope.training.sharpness import parts_of_split, products_of

        self.traced, workload = traced, traced.workload
        self._per_example = traced.operations_per_example
        self._per_evaluation = traced.operations_per_evaluation * evaluations
        # A product with the Hessian takes twice as many operations as a gradient, at the speed of large batches.
        products = products_of(workload) * parts_of_split(workload)[1] * sharpnesses
        self._per_evaluation += round(2 * products * self._per_example)
        # Each small batch of an estimate costs what an update does.
        batches, self._small_batch_size = small_batches(workload)
        self._small_batches = batches * noise_scales
        read = {} if workload.feed is None else workload.feed.bytes
        self._bytes_per_example = read.get("train", 0) / examples_in(workload.train)
        self._bytes_per_trial = sum(read.values()) * evaluations
        self._evaluated = sum(examples_in(workload.split(name)) for name in SPLITS) * evaluations
        self._seconds_to_read = 0.0
        # By rule and batch size.
        self._probed: dict[str, dict[int, float]] = {}
        self._noted: dict[str, dict[int, float]] = {}
        self._rules: dict[str, Optimizer] = {}
        self._pace = 1.0

    def _timed(self, rule: str | None) -> dict[int, float]:
        """Return the seconds of an update by batch size, as far as a rule has been timed."""
        probed, noted = (of.get(rule, {}) if rule else {} for of in (self._probed, self._noted))
        return {size: seconds * self._pace for size, seconds in probed.items()} | noted

    @property
    def _first(self) -> str | None:
        """The rule that was timed first."""
        return next(iter(self._rules), None)

    @property
    def programs_timed(self) -> int:
        """How many programs have been timed, and so compiled."""
        return sum(len(self._timed(rule)) for rule in self._rules)

    def note(self, batch_size: int, seconds_per_update: float, optimizer: Optimizer = PLAIN) -> None:
        """Take in the timing of a pack of one batch size."""
        rule = self._known(optimizer)
        if probed := self._probed.get(rule):
            self._pace = seconds_per_update / _on_the_line(batch_size, probed)
        self._noted.setdefault(rule, {})[batch_size] = seconds_per_update

    def probe(self, backend: Trainer, kinds: Sequence[Kind]) -> None:
        """Time the smallest batch size, and the largest of those whose update should take no more than a moment.

        Each update rule is timed by itself.
        """
        self._seconds_to_read = backend.seconds_to_read
        for optimizer in dict.fromkeys(kind.optimizer for kind in kinds):
            by_size = {kind.batch_size: kind for kind in kinds if kind.optimizer == optimizer}
            smallest, probed = min(by_size), self._probed.setdefault(self._known(optimizer), {})
            probed[smallest] = backend.seconds_per_update(by_size[smallest])
            quick = [size for size in by_size if probed[smallest] * size / smallest < MOST_SECONDS_PROBED]
            if quick and max(quick) > smallest:
                probed[max(quick)] = backend.seconds_per_update(by_size[max(quick)])

    def probed(self, kind: Kind) -> float | None:
        """Return the seconds of an update of a kind, or None where it was not probed."""
        return self._probed.get(kind.optimizer.family, {}).get(kind.batch_size)

    def _known(self, optimizer: Optimizer) -> str:
        self._rules.setdefault(optimizer.family, optimizer)
        return optimizer.family

    def _of_update(self, batch_size: int, optimizer: Optimizer) -> float:
        """Return the operations of an update."""
        prepared = optimizer.prepared(lambda: self.traced.layers)
        return prepared.operations_per_update(batch_size, self._per_example)

    def operations(self, trial_updates: int, batch_size: int, optimizer: Optimizer = PLAIN) -> int:
        """Return the operations of a trial, evaluation included."""
        return round(trial_updates * self._of_update(batch_size, optimizer)) + self._beside

    def bytes(self, trial_updates: int, batch_size: int) -> int:
        """Return the bytes that the host reads for a trial, evaluation included."""
        return round(trial_updates * batch_size * self._bytes_per_example) + self._bytes_per_trial

    @property
    def _beside(self) -> int:
        """The operations of a trial's evaluations and estimates of its noise."""
        return self._per_evaluation + round(self._small_batches * self._small_batch_size * self._per_example)

    @property
    def seconds_per_operation(self) -> float | None:
        """The speed of the largest batch of the rule that was timed first, or None where nothing has been timed."""
        if self._first is None:
            return None
        largest, seconds = max(self._timed(self._first).items())
        operations = self._of_update(largest, self._rules[self._first])
        return seconds / operations if operations else 0.0

    def per_update(self, batch_size: int, optimizer: Optimizer = PLAIN) -> float | None:
        """Return the seconds that an update is expected to take, or None where nothing has been timed."""
        if timed := self._timed(optimizer.family):
            return _on_the_line(batch_size, timed)
        if self._first is None:
            return None
        seconds = _on_the_line(batch_size, self._timed(self._first))
        theirs = self._of_update(batch_size, self._rules[self._first])
        return seconds * self._of_update(batch_size, optimizer) / theirs if theirs else seconds

    def per_trial(self, updates: int, batch_size: int, optimizer: Optimizer = PLAIN) -> float | None:
        """Return the seconds that a trial is expected to take, evaluation included, on average over a full pack."""
        per_update = self.per_update(batch_size, optimizer)
        if per_update is None:
            return None
        return updates * per_update + self._evaluating()

    def training_seconds(
        self, seconds: float, trials: int, updates: int, batch_size: int, optimizer: Optimizer = PLAIN
    ) -> float:
        """Return what of the seconds of a pack went into training rather than evaluation, in expected proportion."""
        known = self.per_update(batch_size, optimizer)
        if known is None:
            training = updates * self._of_update(batch_size, optimizer)
            evaluating = float(self._beside * trials)
        else:
            training, evaluating = updates * known, self._evaluating() * trials
        return seconds * training / (training + evaluating) if training else seconds

    def _evaluating(self) -> float:
        """Return the seconds of a trial's evaluations, at the speed of large batches, and noise estimates, of small."""
        estimating = self._small_batches * (self.per_update(self._small_batch_size) or 0.0)
        computing = self._per_evaluation * (self.seconds_per_operation or 0.0)
        return max(computing, self._evaluated * self._seconds_to_read) + estimating


def microbatch_proposal(backend: Trainer, kinds: Sequence[Kind], costs: Costs, multiple: int) -> str:
    """Return which microbatch size would train a workload's large batches faster, in a sentence; empty if none would.

    On a CPU a large batch of a convolutional network takes several times as long whole as in parts whose activations
    stay in the cache.

    Args:
        backend: what trains, and times.
        kinds: those of the study.
        costs: what has been probed of them.
        multiple: of which every microbatch size is a whole multiple.
    """
    (optimizer, *_) = dict.fromkeys(kind.optimizer for kind in kinds)
    largest = max(
        (kind for kind in kinds if kind.optimizer == optimizer and costs.probed(kind) is not None),
        key=lambda kind: kind.batch_size,
    )
    seconds = costs.probed(largest) or 0.0
    sizes = [size for size in MICROBATCH_SIZES if size % multiple == 0 and size < largest.microbatch_size]
    if seconds < SECONDS_THAT_MATTER:
        return ""
    timed = {size: backend.seconds_per_update(replace(largest, microbatch_size=size)) for size in sizes}
    best = min(timed, key=lambda size: timed[size], default=0)
    if not timed or seconds < FASTER * timed[best]:
        return ""
    return (
        f"With --microbatch-size {best} an update at batch size {largest.batch_size:,} takes {timed[best]:.2g} s "
        f"instead of {seconds:.2g} s on this machine."
    )


def costs_of(study: Study, traced: Mapping[str, TracedWorkload]) -> dict[str, Costs]:
    """Return what the trials of these workloads of a study cost, by their names."""
    counts = len(study.evaluate_at), len(study.noise_scale_at), len(study.sharpness_at)
    return {name: Costs(each, *counts) for name, each in traced.items()}


def _on_the_line(batch_size: int, timed: Mapping[int, float]) -> float:
    sizes = sorted(timed)
    seconds = [timed[size] for size in sizes]
    if batch_size <= sizes[-1]:
        return float(np.interp(batch_size, sizes, seconds))
    # Beyond what was timed, the line through the last two, but never worse than proportional to the largest.
    slope = seconds[-1] / sizes[-1]
    if len(sizes) > 1:
        slope = min(slope, max(0.0, (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])))
    return seconds[-1] + slope * (batch_size - sizes[-1])


def rates_expected(declaration: Declaration) -> float:
    """Return how many learning rates a cell's search needs on average, until this study's own cells tell.

    5.9 + 10.5/n for n seeds, 7.2 for one, and a fifth more over several budgets: seen in the built-in studies.
    """
    seeds, several = Seeds.of(declaration.seeds).search, len(declaration.trial_budgets) > 1
    return (5.9 + 10.5 / seeds if seeds > 1 else 7.2) * (1.2 if several else 1.0)


def trials_expected(seeds: Seeds, rates: float) -> int:
    """Return how many trials a cell takes at so many learning rates, some of which get more seeds than the others.

    The best rates for score and training loss mostly lie beside each other: six rates lie within an octave of them.
    """
    near = max(seeds.near_best, seeds.rates)
    steps = (max(seeds.best, near), 1), (near, 2), (seeds.rates, 3)
    return round(rates * seeds.search) + sum((count - seeds.search) * places for count, places in steps)


def remaining(declaration: Declaration, found: Search, costs: Mapping[str, Costs], compiling: float = 0.0) -> Plan:
    """Return what is still to be trained, given where the search of each cell stands.

    A workload that has not been timed is expected to be as fast as others; an unlimited budget is counted in full.

    Args:
        declaration: the study.
        found: where its search stands.
        costs: what a trial costs, by the workload's name.
        compiling: the seconds that programs are still expected to take to compile.
    """
    finished = [stands for stands in found.rounds if stands.finished]
    rates = float(len(declaration.learning_rates))
    if not rates:  # what cells have been seen to need counts as some of this study's cells
        seeds = [declaration.seeds_of(stands.cell) for stands in finished]
        needed = [
            (len(stands.trials) - trials_expected(of, 0.0)) / of.search
            for stands, of in zip(finished, seeds, strict=True)
        ]
        rates = (SEEN_AS_CELLS * rates_expected(declaration) + sum(needed)) / (SEEN_AS_CELLS + len(needed))
    speeds = [cost.seconds_per_operation for cost in costs.values()]
    timed = [speed for speed in speeds if speed is not None]
    # Cells with the trials that they have, and those that they are known to want.
    unfinished = [(s.cell, len(s.trials) - len(s.pending), len(s.pending)) for s in found.rounds if s.pending]
    unfinished += [(cell, 0, 0) for cell in found.waiting]
    # Of workloads that only the folder knows nothing can be trained.
    unfinished = [of for of in unfinished if of[0].workload.name in costs]
    trials = updates = examples = operations = read = 0
    seconds = 0.0
    for cell, tried, known in unfinished:
        cost, expected = (
            costs[cell.workload.name],
            max(known, trials_expected(declaration.seeds_of(cell), rates) - tried),
        )
        trials += expected
        updates += expected * cell.updates
        examples += expected * cell.updates * cell.batch_size
        each = cost.operations(cell.updates, cell.batch_size, cell.optimizer)
        operations += expected * each
        read += expected * cost.bytes(cell.updates, cell.batch_size)
        per_trial = cost.per_trial(cell.updates, cell.batch_size, cell.optimizer)
        if per_trial is None and timed:
            per_trial = each * float(np.mean(timed))
        seconds += expected * ((per_trial or 0.0) + SECONDS_BESIDE)
    if not unfinished:
        return Plan(0, 0, 0, 0, 0, 0.0)
    left = seconds + compiling if timed else None
    return Plan(len(unfinished), trials, updates, examples, operations, left, read)


def expansion(declaration: Declaration, costs: Mapping[str, Costs]) -> str:
    """Return a study written out: for each workload and budget what its trials share, and a line a batch size."""
    records = [record for record in declaration.workloads if record.name in costs]
    blocks = product(records, declaration.trial_budgets)
    return "\n\n".join(_block(declaration, record, budget, costs[record.name]) for record, budget in blocks)


def _block(declaration: Declaration, record: WorkloadRecord, budget: TrialBudget, costs: Costs) -> str:
    reached = [str(b) for b in declaration.budgets if isinstance(b, Unlimited) and budget in b.budgets]
    only = f" (as far as {', '.join(reached)} goes)" if reached and budget not in declaration.budgets else ""
    expected = len(declaration.learning_rates) or rates_expected(declaration)
    rates = len(declaration.learning_rates) or f"about {expected:.2g}, searched"
    what = dict(record.fields) | {"ghost batch size": record.ghost_batch_size, "unroll": record.unroll}
    written = ", ".join(f"{name} {value}" for name, value in what.items() if value != 1)
    examples = record.examples
    estimates = {"noise scale": declaration.noise_scale_at, "sharpness": declaration.sharpness_at}
    beside = [f", {name} at " + ", ".join(f"{part:g}" for part in at) for name, at in estimates.items() if at]
    lines = [
        f"study       {declaration.name}",
        f"workload    {record.name}, version {record.version}{': ' + written if written else ''}",
        f"examples    {examples[0]:,} to train, {examples[1]:,} to validate, {examples[2]:,} to test",
        f"optimizers  {', '.join(map(str, declaration.optimizers))}"
        f"{'' if declaration.schedule == HALVING else f', learning rate {declaration.schedule}'}"
        f"{'' if declaration.compute_dtype == 'float32' else f', gradients in {declaration.compute_dtype}'}",
        f"budget      {budget}{only}, evaluated at {', '.join(f'{part:g}' for part in declaration.evaluate_at)}"
        f"{''.join(beside)}",
        f"seeds       {declaration.seeds}",
        f"rates       {rates} at each batch size and optimizer",
        "batch size  microbatch     updates  operations a trial  trials",
    ]
    for size, part in declaration.microbatch_sizes(record).items():
        updates = budget.updates(size, examples[0])
        operations = costs.operations(updates, size, declaration.trial_optimizers[0])
        cells = [Cell(record, budget, optimizer, size) for optimizer in declaration.trial_optimizers]
        trials = sum(trials_expected(declaration.seeds_of(cell), expected) for cell in cells)
        lines.append(f"{size:>10,}  {part:>10,}  {updates:>10,}  {operations:>18.3g}  {trials:>6.0f}")
    return "\n".join(lines)
