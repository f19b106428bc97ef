"""Learning on a device, sample by sample: order, learning-rate schedule, evaluation and what was measured."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcugrad.compiler import PARAMETERS, Compiled
from mcugrad.data import Dataset
from mcugrad.devices.base import NEVER_SKIP, Device, StepResult
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.ir import Array, Node
from mcugrad.loss import Loss
from mcugrad.metrics import measure
from mcugrad.ops.backprop import Chain
from mcugrad.ops.piece import Piece
from mcugrad.ops.share import PartOfSum, Share
from mcugrad.program import Program
from mcugrad.replay import expected_writes

SCHEDULES = ("halving", "cosine", "constant")
HALVE_AT = {"halving": (0.5, 0.75, 0.9), "constant": ()}
"""Fractions of the run at which the learning rate is halved."""
# 2^-h is nearest to (1 + cos(pi t)) / 2, the cosine schedule, on a logarithmic scale from these t on.
HALVE_AT["cosine"] = tuple(math.acos(2 * 2.0 ** (0.5 - h) - 1) / math.pi for h in range(1, 7))
AGREEMENT_SAMPLES = 8  # test samples that an emulated device classifies too
CHUNK = 256  # steps between two looks at the progress
SATURATED = 0.001  # share of clamped gradient elements above which the exponents do not suit the data
DIVERGED_WINDOW = 256  # steps whose mean loss tells whether learning diverges
DIVERGED = 2.5  # times the loss of a guess
TRAINING = "training.json"

Progress = Callable[[str, int, int], None]


def quiet(_what: str, _done: int, _total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class Course:
    """How long and in which way to learn.

    skip: no backward pass for samples with at least this probability.  balanced: every class comes equally often,
    whatever its share of the data.  new: classes that come only after all others have been learned, in a phase of the same
    length."""

    steps: int | None = None
    epochs: int | None = None
    schedule: str = "halving"
    skip: float = 0.95
    seed: int = 0
    balanced: bool = False
    new: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise McugradError(f"unknown schedule {self.schedule!r}: use {' or '.join(SCHEDULES)}")
        if self.steps is not None and self.epochs is not None:
            raise McugradError("give --steps or --epochs, not both")
        if min(v for v in (self.steps, self.epochs, 1) if v is not None) < 1:
            raise McugradError("--steps and --epochs must be at least 1")
        if not 0 < self.skip <= 2:
            raise McugradError(f"--skip is a probability (above 1: never skip), got {self.skip}")

    def length(self, samples: int) -> int:
        """Number of training steps for a training set of that size."""
        return self.steps if self.steps is not None else (self.epochs or 1) * samples

    @property
    def threshold(self) -> int:
        """`skip` in Q15; anything above 1 never skips."""
        return NEVER_SKIP if self.skip > 1 else round(self.skip * 32768)

    def halvings(self, step: int, total: int) -> int:
        """How often the learning rate has been halved by that step."""
        return sum(step >= f * total for f in HALVE_AT[self.schedule])

    def order(self, y: Array, total: int) -> Array:
        """Sample index of each step for labels y [N]: a fresh seeded permutation per epoch; when balanced, of the classes
        over and over, each with a permutation of its samples."""
        if not self.balanced:
            return _permutations(len(y), total, [self.seed])
        members = [np.flatnonzero(y == k) for k in np.unique(y)]
        turns = _permutations(len(members), total, [self.seed])
        order = np.empty(total, np.int64)
        for k, samples in enumerate(members):
            mine = np.flatnonzero(turns == k)
            order[mine] = samples[_permutations(len(samples), len(mine), [self.seed, k])]
        return order


def _permutations(n: int, total: int, seed: list[int]) -> Array:
    """The first `total` of one seeded permutation of 0 .. n - 1 after the other."""
    parts = [np.random.default_rng([*seed, e]).permutation(n) for e in range(math.ceil(total / n))]
    return np.concatenate(parts)[:total] if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Learned:
    """One entry per step: loss -ln((p + 1/2) / 32768), how far it went (mcg_step_t), instructions (None: not counted)."""

    losses: tuple[float, ...]
    progress: tuple[int, ...]
    saturated: int
    instructions: tuple[int, ...] | None
    seconds: float

    @property
    def full_steps(self) -> int:
        """Steps whose backward pass ran."""
        return sum(p == 0 for p in self.progress)

    def step_instructions(self) -> tuple[int | None, int | None]:
        """(maximum over steps whose backward pass ran, mean over all steps)."""
        if self.instructions is None:
            return None, None
        full = [i for i, p in zip(self.instructions, self.progress, strict=True) if p == 0]
        return max(full, default=None), round(sum(self.instructions) / len(self.instructions))


def loss_of(p_label: int) -> float:
    """-ln((p + 1/2) / 32768) of a probability in Q15."""
    return -math.log((p_label + 0.5) / 32768)


def learn(
    device: Device,
    x: Array,
    y: Array,
    course: Course,
    progress: Progress = quiet,
    score: Callable[[int], float] = loss_of,
    chance: float | None = None,
    resume: bool = False,
) -> Learned:
    """Trains `device` on int8 inputs x [N,H,W,C] with labels y [N] or targets y [N,K], from the parameters it holds.

    score: the loss that a step's p_label stands for.  chance: the loss of a guess (default: among as many classes as y has).
    resume: steps are counted on, and what a replay buffer holds stays.
    Raises McugradError when learning diverges."""
    guess = math.log(max(int(y.max()) + 1, 2)) if chance is None else chance
    total = course.length(len(x))
    order = course.order(y, total)
    device.set_control(seed=course.seed, step=None if resume else 0, skip=course.threshold)
    results: list[StepResult] = []
    start = time.perf_counter()
    for first, last in _spans(course, total, isinstance(device, Host)):
        device.set_control(halvings=course.halvings(first, total))
        chosen = order[first:last]
        if isinstance(device, Host):
            results += device.train_many(x[chosen], y[chosen].astype(np.int32))
        else:
            results += [device.train_step(x[i], y[i]) for i in chosen]
        progress("learning", last, total)
        _stop_if_diverging([score(r.p_label) for r in _ends(results)], len(results), guess)
    seconds = time.perf_counter() - start
    counted = [r.instructions for r in results if r.instructions is not None]
    return Learned(
        tuple(score(r.p_label) for r in results),
        tuple(r.progress for r in results),
        sum(r.saturated for r in results),
        tuple(counted) if len(counted) == len(results) else None,
        seconds,
    )


def _ends(results: list[StepResult]) -> list[StepResult]:
    """The first and the last steps, by which divergence is seen; none as long as they overlap."""
    return [] if len(results) < 2 * DIVERGED_WINDOW else [*results[:DIVERGED_WINDOW], *results[-DIVERGED_WINDOW:]]


def _stop_if_diverging(ends: list[float], steps: int, chance: float) -> None:
    """Raises McugradError when the last losses are far above chance, and not because they began there."""
    if not ends:
        return
    first, last = (sum(window) / DIVERGED_WINDOW for window in (ends[:DIVERGED_WINDOW], ends[DIVERGED_WINDOW:]))
    chance = chance or first
    if last > max(DIVERGED * chance, first + chance):
        raise McugradError(
            f"learning diverges: after {steps} steps the mean loss is {last:.2f}, that of a guess "
            f"{chance:.2f}: lower the rate (--lr), or calibrate with samples like those it learns from (--calibrate)"
        )


def _spans(course: Course, total: int, fast: bool) -> Iterator[tuple[int, int]]:
    """[first, last) runs of steps with one learning rate, short enough to show progress."""
    size = CHUNK if fast else 8
    cuts = {math.ceil(f * total) for f in HALVE_AT[course.schedule]}
    edges = sorted({*range(0, total, size), *cuts, total})
    yield from itertools.pairwise(edges)


def accuracy(device: Device, x: Array, y: Array) -> float:
    """Share of int8 samples x [N,H,W,C] that the device classifies as y [N]."""
    seen, correct = device.evaluate(x, y.astype(np.int32))
    return correct / seen


def agree(device: Device, twin: Device, x: Array) -> int:
    """Number of samples on which device and twin were compared; raises McugradError unless all logits are equal."""
    for i, sample in enumerate(x):
        if not np.array_equal(device.infer(sample), twin.infer(sample)):
            raise McugradError(f"the device and the host twin disagree on test sample {i}: report this as a bug of mcugrad")
    return len(x)


def require_updates(program: Program, scheme: str) -> None:
    """Raises McugradError where a scheme updates nothing."""
    if not program.trains:
        raise McugradError(
            f"the scheme {scheme!r} updates nothing of {program.name}, which keeps its own output and has no new head: "
            "use bias, full, or a .toml file (mcugrad search finds one)"
        )


def train(
    compiled: Compiled, data: Dataset, course: Course, on: str = "host", progress: Progress = quiet
) -> tuple[dict[str, Any], Learned]:
    """Evaluates, trains and evaluates again; the result as nested JSON values, and every step.

    On emulated devices the whole evaluation runs on the host twin with the parameters read back, and a sample of it on
    the device, which must agree.  Raises McugradError when there is nothing to learn from or to test on."""
    (x, y), (test_x, test_y) = data.train, data.test
    if not len(x) or not len(test_x):
        raise McugradError(f"{data.origin}: needs training and test samples, has {len(x)} and {len(test_x)}")
    require_updates(compiled.program, compiled.scheme.name)
    prepared = compiled.prepared
    for given, option in ((course.balanced, "--balanced"), (course.new, "--new-classes")):
        if given and prepared.targets.loss is not Loss.SOFTMAX:
            raise McugradError(f"{option} needs one class per sample: leave it out, or use --loss softmax")
    check_new_classes(course.new, (y, test_y))
    x, test_x = prepared.quantize(x), prepared.quantize(test_x)
    y, score = prepared.targets.encode(y, len(x)), prepared.targets.loss_of(prepared.graph)
    chance = prepared.targets.chance
    with compiled.device("host") as twin, compiled.device(on) as device:
        before = measure(twin, prepared, test_x, test_y, data.test_group)
        if course.new:
            learned, phases = in_phases(device, twin, (x, y), (test_x, test_y), course, progress)
        else:
            learned, phases = learn(device, x, y, course, progress, score, chance), {}
        state = device.read_params()
        twin.write_params(state)
        after = measure(twin, prepared, test_x, test_y, data.test_group)
        agree(device, twin, test_x[:AGREEMENT_SAMPLES])
        counters = device.counters()
        worn = wear(compiled.program, device, len(learned.losses))
    (compiled.folder / PARAMETERS).write_bytes(state)
    found = report(compiled, learned, (before, after), state, counters.forward if counters else None)
    return {**found, **phases, **worn}, learned


def wear(program: Program, device: Device, samples: int) -> dict[str, Any]:
    """{"wear"}: how often latents were written to flash, how often a reservoir is expected to for so many samples, and how
    often the unit was erased that was most.  Nothing where flash holds none."""
    if program.cut is None or device.flash is None:
        return {}
    replay, erased = program.cut.replay, device.flash.erased
    writes = int(erased.sum()) * replay.erase // program.cut.pitch
    expected = round(expected_writes(replay.slots or 0, samples), 1)
    return {"wear": {"samples": samples, "writes": writes, "expected_writes": expected, "most_erased": int(erased.max())}}


def check_new_classes(new: tuple[int, ...], labels: tuple[Array, ...]) -> None:
    """Raises McugradError unless both kinds of classes have samples among the labels [N] of each split."""
    for y in labels if new else ():
        missing = sorted(set(new) - set(np.unique(y).tolist()))
        if missing:
            raise McugradError(f"--new-classes: no sample has the class {missing[0]}; the data has {int(y.max()) + 1} classes")
        if set(np.unique(y).tolist()) <= set(new):
            raise McugradError("--new-classes names every class: leave at least one that is old")


def in_phases(
    device: Device, twin: Device, train: tuple[Array, Array], test: tuple[Array, Array], course: Course, progress: Progress
) -> tuple[Learned, dict[str, Any]]:
    """The old classes first, then the new ones alone: every step, and {"phases", "forgetting"}.

    Each phase gives the accuracy on the old and the new classes of `test` afterwards; forgetting is what the second took
    from the first's accuracy on the old ones.  `twin` evaluates with the parameters read from `device`."""
    (x, y), (test_x, test_y) = train, test
    is_new, of_new = np.isin(y, course.new), np.isin(test_y, course.new)
    parts: list[Learned] = []
    phases: list[dict[str, Any]] = []
    for name, chosen in (("old", ~is_new), ("new", is_new)):
        chance = math.log(int(y.max()) + 1)
        parts.append(learn(device, x[chosen], y[chosen], course, progress, chance=chance, resume=name == "new"))
        twin.write_params(device.read_params())
        groups = {"old": ~of_new, "new": of_new, "all": np.ones(len(test_y), bool)}
        phases.append({"learned": name, "accuracy": {k: accuracy(twin, test_x[m], test_y[m]) for k, m in groups.items()}})
    old = [phase["accuracy"]["old"] for phase in phases]
    return _joined(*parts), {"phases": phases, "forgetting": old[0] - old[1]}


def _joined(first: Learned, second: Learned) -> Learned:
    counted = None
    if first.instructions is not None and second.instructions is not None:
        counted = (*first.instructions, *second.instructions)
    return Learned(
        (*first.losses, *second.losses),
        (*first.progress, *second.progress),
        first.saturated + second.saturated,
        counted,
        first.seconds + second.seconds,
    )


def report(
    compiled: Compiled,
    learned: Learned,
    metrics: tuple[dict[str, float], dict[str, float]],
    state: bytes,
    forward: int | None,
) -> dict[str, Any]:
    """What a run measured, as nested JSON values.

    metrics: before and after, by name.  state: the parameters at the end.  forward: instructions of an inference."""
    step, mean = learned.step_instructions()
    sram = compiled.facts()["sram"]
    share = saturated_share(compiled.program, learned)
    moved = {name: {"before": metrics[0][name], "after": metrics[1][name]} for name in metrics[0]}
    return {
        **moved,
        "metrics": list(moved),
        "loss": compiled.prepared.targets.loss.value,
        "losses": list(learned.losses),
        "steps": {"total": len(learned.losses), "full": learned.full_steps},
        "saturated": {"elements": learned.saturated, "share": share},
        "instructions": {"forward": forward, "step": step, "step_mean": mean},
        "parameters_sha256": compiled.program.state_hash(state),
        "sram": {k: sram[k] for k in ("static", "stack", "total")},
        "samples_per_second": round(len(learned.losses) / learned.seconds, 2),
        "notes": [_SATURATION_NOTE.format(share)] if share > SATURATED else [],
    }


_SATURATION_NOTE = (
    "{:.2%} of the gradient elements were clamped (healthy: below 0.1%): the gradient exponents do not suit this data; "
    "calibrate with samples like those it learns from (--calibrate), or lower the rate (--lr)"
)


def saturated_share(program: Program, learned: Learned) -> float:
    """Clamped elements of the stored gradients, as a share of all those of the steps whose backward pass ran."""
    elements = stored_gradients(program) * learned.full_steps
    return learned.saturated / elements if elements else 0.0


def stored_gradients(program: Program) -> int:
    """Elements of all gradients that a step stores."""
    nodes = (n.op.inner(n) if isinstance(n.op, Piece | Share) else n for n in program.graph.nodes)
    return sum(v.type.elements for n in nodes if _stores(n) for v in n.outputs[::2])


def _stores(node: Node) -> bool:
    """Does the node store requantized gradients?"""
    return isinstance(node.op, Chain) or (isinstance(node.op, PartOfSum) and node.op.last)
