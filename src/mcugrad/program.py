"""Everything decided: calls with addresses, constants, state.  The same Program is printed, executed, costed and drawn."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mcugrad.augment import AUGMENT, Augment
from mcugrad.errors import McugradError
from mcugrad.ir import NUMPY, Array, Graph, Node, StopStep, Value
from mcugrad.layout import from_bytes, parameter_hash, to_bytes
from mcugrad.memory.buffer import ALIGN
from mcugrad.memory.problem import Home, StateLayout, state_layout, storage
from mcugrad.memory.schedule import LoadRows, Schedule, Step
from mcugrad.memory.solve import MemoryPlan
from mcugrad.nor import NorFlash, StoreError
from mcugrad.ops.loss import SoftmaxCrossEntropy
from mcugrad.ops.losses import MeanSquaredError, SigmoidCrossEntropy
from mcugrad.passes.train import prune
from mcugrad.replay import Replay, Reservoir


@dataclass(frozen=True, eq=False)
class Cut:
    """Where the frozen beginning of the network ends: after `steps` steps, with `value` alone alive."""

    steps: int
    value: Value
    replay: Replay

    def block_bytes(self, classes: int) -> int:
        return self.replay.block_bytes(classes, self.value.type.nbytes)

    @property
    def pitch(self) -> int:
        """Bytes of flash from one latent to the next; 0 where they lie in SRAM."""
        return self.replay.pitch(self.value.type.nbytes)

    @property
    def flash_bytes(self) -> int:
        """Of flash that latents take."""
        return (self.replay.slots or 0) * self.pitch


@dataclass(frozen=True, eq=False)
class Program:
    """A graph with its schedule and addresses.

    forward: number of leading steps that inference runs too.  logits, p_label, counts: outputs of the graph (p_label None
    and counts empty when it does not train).  cut: where latents are kept, if they are.
    """

    name: str
    graph: Graph
    schedule: Schedule
    plan: MemoryPlan
    state: StateLayout
    forward: int
    homes: Mapping[Value, Home]
    cut: Cut | None = None

    @property
    def latents_at(self) -> int:
        """Offset of the replay buffer, behind everything else in the arena's block."""
        return -(-self.plan.arena // ALIGN) * ALIGN

    @property
    def replay_bytes(self) -> int:
        """Of the replay buffer, and of the gap before it; 0 without one."""
        if self.cut is None:
            return 0
        return self.latents_at - self.plan.arena + self.cut.block_bytes(self.logits.type.elements)

    @property
    def sample(self) -> Value:
        return self.graph.inputs[0]

    @property
    def logits(self) -> Value:
        return self.graph.outputs[0]

    @property
    def p_label(self) -> Value | None:
        return self.graph.outputs[1] if self.trains else None

    @property
    def targets(self) -> int:
        """Numbers that make up a target; 0 for a label, or nothing."""
        if not self.trains:
            return 0
        op, label = training_loss(self.graph), self.graph.inputs[1]
        return 0 if isinstance(op, SoftmaxCrossEntropy) or label not in self.graph.consumers() else label.type.elements

    @property
    def counts(self) -> tuple[Value, ...]:
        """Clamp counts of the stored gradients."""
        return self.graph.outputs[2:]

    @property
    def trains(self) -> bool:
        return bool(self.graph.updates)

    @property
    def augment(self) -> Augment | None:
        """What a training step does to its sample."""
        found: Augment | None = self.graph.meta.get(AUGMENT) if self.trains else None
        return found

    @property
    def zero(self) -> int:
        """The zero point of the sample."""
        return self.sample.type.quant.zero if self.sample.type.quant else 0

    @property
    def input_rows(self) -> bool:
        """Is the input pulled row by row?"""
        return any(isinstance(s, LoadRows) for s in self.schedule)

    @property
    def fingerprint(self) -> int:
        """CRC-32 of what fixes the meaning of the state block: its layout and every frozen constant."""
        crc = zlib.crc32(self.name.encode())
        for p in self.graph.params:
            if self.homes[p.value] is Home.STATE:
                crc = zlib.crc32(f"{p.value.name} {p.value.type} {self.state.offsets[p.value]}".encode(), crc)
            else:
                crc = zlib.crc32(to_bytes(p.data, p.value.type), crc)
        return crc

    def initial_state(self) -> bytes:
        """The state block before any learning."""
        return self.pack_state({p.value.name: p.data for p in self.graph.mutable()})

    def pack_state(self, params: Mapping[str, Array]) -> bytes:
        """The state block for these contents of the mutable parameters.  Raises McugradError when one is missing."""
        block = bytearray(self.state.total)
        for p in self.graph.mutable():
            if p.value.name not in params:
                raise McugradError(f"the parameter {p.value.name} is missing")
            at = self.state.offsets[p.value]
            block[at : at + p.value.type.nbytes] = to_bytes(params[p.value.name], p.value.type)
        return bytes(block)

    def unpack_state(self, block: bytes) -> dict[str, Array]:
        """Mutable parameters by name.  Raises McugradError when the block has another size."""
        if len(block) != self.state.total:
            raise McugradError(f"a state block of {self.name} has {self.state.total} bytes, got {len(block)}")
        where = {p.value: self.state.offsets[p.value] for p in self.graph.mutable()}
        return {v.name: from_bytes(block[at : at + v.type.nbytes], v.type) for v, at in where.items()}

    def state_hash(self, block: bytes) -> str:
        """The documented hash of the mutable parameters in a state block."""
        return parameter_hash(self.unpack_state(block))


def lower(graph: Graph, schedule: Schedule, plan: MemoryPlan, name: str, replay: Replay | None = None) -> Program:
    """The program of a planned graph.  Raises McugradError when a node has no kernel, or when nothing can be replayed."""
    for node in graph.nodes:
        if not node.op.lowers:
            raise McugradError(f"{node.where}: {node.op.name} was not fused and has no C kernel")
    inference = set(inference_graph(graph).nodes)
    last = max(i for i, s in enumerate(schedule) if isinstance(s, Step) and s.node in inference)
    home = storage(graph).home
    program = Program(name, graph, schedule, plan, state_layout(graph), last + 1, home)
    return program if replay is None else replace(program, cut=_cut(program, replay))


def _cut(program: Program, replay: Replay) -> Cut:
    """The last place before anything that learns where a single value carries all that comes after."""
    if not program.trains or program.targets or not isinstance(training_loss(program.graph), SoftmaxCrossEntropy):
        raise McugradError("--replay needs samples of classes: leave it out, or use --loss softmax with something that learns")
    homes, schedule, found = program.homes, program.schedule, None
    frozen = (i for i, s in enumerate(schedule) if any(homes[v] is Home.STATE for v in (*s.inputs, *s.outputs)))
    limit = min(next(frozen, program.forward), program.forward)
    for at in range(int(program.input_rows), limit + 1):
        crossing = _crossing(program, at)
        whole = at == 0 or schedule[at].segment is None or schedule[at - 1].segment != schedule[at].segment
        if whole and len(crossing) == 1 and not crossing & set(program.plan.ring_rows):
            found = Cut(at, crossing.pop(), replay)
    if found is None:
        raise McugradError("--replay: nowhere before the first layer that learns does a single value carry the network")
    return found


def _crossing(program: Program, at: int) -> set[Value]:
    """Values in the arena that are written before step `at` and read from then on."""
    steps, homes = program.schedule, program.homes
    before = {v for s in steps[:at] for v in s.outputs} | (set() if program.input_rows else {program.sample})
    after = {v for s in steps[at:] for v in s.inputs} | set(program.graph.outputs)
    return {v for v in before & after if homes[v] is Home.ARENA}


def training_loss(graph: Graph) -> SoftmaxCrossEntropy | SigmoidCrossEntropy | MeanSquaredError:
    """The loss of a training graph."""
    ops = (n.op for n in graph.nodes)
    return next(op for op in ops if isinstance(op, SoftmaxCrossEntropy | SigmoidCrossEntropy | MeanSquaredError))


def inference_graph(graph: Graph) -> Graph:
    """The part that computes the logits."""
    forward = tuple(n for n in graph.nodes if n.op.phase == "forward")
    return prune(replace(graph, inputs=graph.inputs[:1], nodes=forward, outputs=graph.outputs[:1], updates=()))


class Machine:
    """Executes a Program in numpy on one arena of bytes: the twin of the generated C.

    poison: dead bytes of the arena are overwritten between calls, which must change nothing.
    """

    def __init__(self, program: Program, poison: bool = False, seed: int = 0) -> None:
        self.program, self.poison = program, poison
        self.rng = np.random.default_rng(seed)
        self.arena = self.rng.integers(0, 256, program.plan.arena, dtype=np.uint8)
        self.state = np.frombuffer(program.initial_state(), np.uint8).copy()
        self.reservoir = Reservoir(0, 0)
        self.latents: dict[int, bytes] = {}
        self.flash = NorFlash(program.cut.flash_bytes, program.cut.replay.erase) if program.cut and program.cut.pitch else None
        self.constants = {p.value: p.data for p in program.graph.params}

    def infer(self, x: Array) -> Array:
        """Logits int32 [K] of a sample int8 of the input's shape."""
        self._run(self.program.schedule[: self.program.forward], x, {})
        return self._read(self.program.logits, 0, None, {})

    def train_step(self, x: Array, label: int | Array, control: Array) -> tuple[int, int]:
        """(p_label, progress) of a training step; label: class or target; control: int32 [4] seed, step, halvings, skip.

        Raises StoreError, the step done, when flash does not take a latent."""
        if self.program.augment is not None:
            x = self.program.augment.apply(x, self.program.zero, int(control[0]), int(control[1]))
        if self.program.cut is not None:
            return self._with_replay(self.program.cut, x, int(label), control)
        return self._learn(0, x, label, control)

    def _learn(self, first: int, x: Array, label: int | Array, control: Array) -> tuple[int, int]:
        """The steps from `first` on."""
        label_value, control_value = self.program.graph.inputs[1:]
        scalars = {label_value: np.atleast_1d(label), control_value: control}
        progress = self._run(self.program.schedule[first:], x, scalars, first)
        assert self.program.p_label is not None
        return int(self._read(self.program.p_label, 0, None, {})[0]), progress

    def _with_replay(self, cut: Cut, x: Array, label: int, control: Array) -> tuple[int, int]:
        """A step on a new sample, then on latents of old ones; each has a step number of its own."""
        assert cut.replay.slots is not None
        seed, step, each = int(control[0]), int(control[1]), cut.replay.per_step + 1
        if step == 0:
            self.reservoir, self.latents = Reservoir(cut.replay.slots, self.program.logits.type.elements), {}
        self._run(self.program.schedule[: cut.steps], x, {})
        stored = self._keep(cut, self.reservoir.offer(label, seed))
        numbers = [np.array([seed, step * each + i, *control[2:]], np.int64) for i in range(each)]
        found = self._learn(cut.steps, x, label, numbers[0])
        for number in numbers[1:]:
            slot = self.reservoir.draw(seed, int(number[1]))
            if slot is None:
                break
            self._write(cut.value, self._kept(cut, slot), 0, None)
            self._learn(cut.steps, x, self.reservoir.labels[slot], number)
        if not stored or not any(self.reservoir.kept):
            raise StoreError(f"step {step}: flash did not take the latent")
        return found

    def _keep(self, cut: Cut, slot: int | None) -> bool:
        """Puts the value at the cut into a slot; False when flash does not take it."""
        if slot is None:
            return True
        latent = to_bytes(self._read(cut.value, 0, None, {}), cut.value.type)
        if self.flash is None:
            self.latents[slot] = latent
        elif not self.flash.write(slot * cut.pitch, cut.pitch, latent):
            self.reservoir.retire(slot)
            return False
        return True

    def _kept(self, cut: Cut, slot: int) -> Array:
        """What a slot holds."""
        at, size = slot * cut.pitch, cut.value.type.nbytes
        return from_bytes(self.latents[slot] if self.flash is None else self.flash.data[at : at + size], cut.value.type)

    def _run(self, steps: Schedule, x: Array, scalars: Mapping[Value, Array], first: int = 0) -> int:
        if not self.program.input_rows and first == 0:
            self._write(self.program.sample, x, 0, None)
        for index, step in enumerate(steps, first):
            if self.poison:
                self._poison(index)
            if isinstance(step, LoadRows):
                self._write(step.value, x[:, step.first : step.last], step.first, step.last)
                continue
            try:
                self._step(step, scalars)
            except StopStep as stop:
                return stop.progress
        return 0

    def _step(self, step: Step, scalars: Mapping[Value, Array]) -> None:
        node = step.node
        if step.segment is None:
            arrays = [self._read(v, 0, None, scalars) for v in node.inputs]
            outputs = node.op.eval(node, *arrays)
            for value, array in zip(node.outputs, outputs, strict=True):
                self._write(value, np.asarray(array).astype(NUMPY[value.type.dtype]), 0, None)
            return
        needs = {n.index: n for n in node.op.needs(node, step.first, step.last)}
        arrays, inputs = [], []
        for i, value in enumerate(node.inputs):
            first, last = (needs[i].first, needs[i].last) if i in needs else (0, None)
            arrays.append(self._read(value, first, last, scalars))
            inputs.append(Value(value.name, replace(value.type, shape=arrays[-1].shape), value.origin))
        cropped = Node(node.op.crop(node, step.first, step.last), tuple(inputs), node.outputs)
        (out,) = cropped.op.eval(cropped, *arrays)
        self._write(node.outputs[0], np.asarray(out).astype(np.int8), step.first, step.last)

    def _place(self, value: Value) -> tuple[Array, int]:
        if self.program.homes[value] is Home.STATE:
            return self.state, self.program.state.offsets[value]
        return self.arena, self.program.plan.offsets[value]

    def _rows(self, value: Value, first: int, last: int) -> list[tuple[int, int]]:
        """Byte ranges of rows [first, last) in the value's ring."""
        ring = self.program.plan.ring_rows.get(value, value.type.shape[1])
        size = value.type.row_bytes
        return [((row % ring) * size, size) for row in range(first, last)]

    def _read(self, value: Value, first: int, last: int | None, scalars: Mapping[Value, Array]) -> Array:
        if value in scalars:
            return scalars[value]
        if self.program.homes[value] is Home.FLASH:
            return self.constants[value] if last is None else self.constants[value][:, first:last]
        memory, at = self._place(value)
        if last is None:
            return from_bytes(memory[at : at + value.type.nbytes], value.type)
        parts = [memory[at + o : at + o + n] for o, n in self._rows(value, first, last)]
        shape = (1, last - first, *value.type.shape[2:])
        return from_bytes(np.concatenate(parts), replace(value.type, shape=shape))

    def _write(self, value: Value, array: Array, first: int, last: int | None) -> None:
        memory, at = self._place(value)
        if last is None:
            memory[at : at + value.type.nbytes] = np.frombuffer(to_bytes(array, value.type), np.uint8)
            return
        packed = np.frombuffer(to_bytes(array, replace(value.type, shape=array.shape)), np.uint8).reshape(last - first, -1)
        for row, (o, n) in zip(packed, self._rows(value, first, last), strict=True):
            memory[at + o : at + o + n] = row

    def _poison(self, index: int) -> None:
        """Random bytes wherever no buffer is alive at step `index`."""
        dead = np.ones(len(self.arena), bool)
        for buffer, at in self.program.plan.placed:
            if buffer.first <= index <= buffer.last:
                dead[at : at + buffer.size] = False
        self.arena[dead] = self.rng.integers(0, 256, int(dead.sum()), dtype=np.uint8)
