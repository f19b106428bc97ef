"""The one graph: a network, its backward pass and its weight updates as an ordered tuple of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError

Array = NDArray[Any]

# Storage of one element in bits; the interpreter keeps "u1" and "s4" unpacked in int8.
BITS = {"u1": 1, "s4": 4, "s8": 8, "s16": 16, "s32": 32, "f32": 32}
NUMPY = {"u1": np.int8, "s4": np.int8, "s8": np.int8, "s16": np.int16, "s32": np.int32, "f32": np.float32}


class GraphError(McugradError):
    """A graph breaks a rule; the message names the node and where it came from in the user's model."""


@dataclass(frozen=True)
class Quant:
    """real = scale[c] * (q - zero) * 2**(exponent + e_s); the power only for gradients, whose `exponent` is a slot of
    the graph's `exponents` parameter (None: 0).  `scale` holds one number, or one per index of `axis`."""

    scale: tuple[float, ...]
    zero: int = 0
    axis: int | None = None
    exponent: int | None = None

    def __post_init__(self) -> None:
        if not self.scale or not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise GraphError(f"a quantization scale must be positive and finite, got {self.scale[:4]}")
        if self.axis is None and len(self.scale) != 1:
            raise GraphError(f"{len(self.scale)} scales need an axis")

    def __str__(self) -> str:
        scale = f"{self.scale[0]:.6g}" if len(self.scale) == 1 else f"{len(self.scale)} scales@{self.axis}"
        return f"q({scale},{self.zero})" if self.exponent is None else f"q({scale},E{self.exponent})"


@dataclass(frozen=True)
class TensorType:
    """Shape (activations NHWC, batch 1), element type and quantization of a value."""

    shape: tuple[int, ...]
    dtype: str
    quant: Quant | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in memory; rows (second axis) of a bit mask are padded to whole bytes."""
        if self.dtype == "u1" and len(self.shape) == 4:
            return self.shape[1] * self.row_bytes
        return (self.elements * BITS[self.dtype] + 7) // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of an NHWC value."""
        _, _, w, c = self.shape
        return (w * c * BITS[self.dtype] + 7) // 8

    def __str__(self) -> str:
        quant = f" {self.quant}" if self.quant else ""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]{quant}"


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor that is written once.  `origin` points into the user's model, for messages."""

    name: str
    type: TensorType
    origin: str = ""

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Work:
    """What a node costs: multiply-accumulates and bytes read or written."""

    macs: int = 0
    nbytes: int = 0


@dataclass(frozen=True)
class Operand:
    """Kernel argument: an address in a value, `offset` bytes from its first (None prints as a null pointer)."""

    value: Value | None
    ctype: str = "int8_t"
    const: bool = True
    offset: int = 0


@dataclass(frozen=True)
class Table:
    """Kernel argument or struct field: a constant array in flash."""

    ctype: str
    data: tuple[int, ...]


@dataclass(frozen=True)
class Struct:
    """Kernel argument: a struct.  All-constant structs live in flash, those with operands are built before the call."""

    ctype: str
    fields: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Scratch:
    """Kernel argument: the node's scratch memory."""


@dataclass(frozen=True)
class Staged:
    """Kernel argument: what `function`, called before with `args`, makes in the scratch memory from byte `offset` on."""

    function: str
    args: tuple[KernelArg, ...]
    offset: int


@dataclass(frozen=True)
class RowRange:
    """Kernel argument: the output rows to compute and the ring sizes, filled in from the schedule's step."""


@dataclass(frozen=True)
class Context:
    """Kernel argument: the caller's `mcg_context_t`."""


KernelArg = Operand | Staged | Table | Struct | Scratch | RowRange | Context | int


@dataclass(frozen=True)
class Kernel:
    """A call of the C runtime, symbolic: addresses come from the memory plan, ranges from the schedule."""

    function: str
    args: tuple[KernelArg, ...]
    scratch: int = 0


@dataclass(frozen=True)
class RowNeed:
    """Input rows [first, last) that an output row range reads, per row-split input index."""

    index: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Walk:
    """An output that a kernel may write over what it has read of an input.

    pieces: int64 [n,4], in the order of the kernel: bytes [0:2) of the input, read before bytes [2:4) of the output are
    written."""

    source: int
    target: int
    pieces: Array


class Op:
    """An operation: a frozen dataclass whose fields are its attributes, and all rules of the op together.

    `phase` is one of forward, loss, backward, update.  `lowers` is False for ops that a pass must fuse before code.
    """

    phase: ClassVar[str] = "forward"
    lowers: ClassVar[bool] = True
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ()  # (input, output) pairs that may share bytes
    aliased: ClassVar[tuple[tuple[int, int], ...]] = ()  # pairs that must share bytes
    splits_rows: ClassVar[bool] = False
    scratch_group: ClassVar[str | None] = None  # nodes of one group share their scratch memory
    weight_axis: ClassVar[int | None] = None  # a layer (inputs x, weight, bias): the weight's output channel axis

    @property
    def name(self) -> str:
        return "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).lstrip("_")

    @property
    def overwrites(self) -> bool:
        """Are the old contents of `aliased` inputs gone when it has run?"""
        return self.phase == "update"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Types of the outputs; raises GraphError, also when an accumulator could leave int32."""
        raise GraphError(f"{self.name} has no type rule")

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        """Integer-exact semantics."""
        raise GraphError(f"{self.name} has no integer semantics: quantize the graph first")

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        """float64 of the same function in the same units, without rounding."""
        raise GraphError(f"{self.name} has no real semantics")

    def gradient(self, node: Node, build: Any) -> None:
        """Adds the backward nodes of `node` through a `training.autodiff.Backward`; an error says what to freeze."""
        raise GraphError(
            f"{self.name} at {node.where} has no gradient: freeze it and everything before it "
            f"(update only layers that come after it)"
        )

    def partial(self, channels: tuple[int, ...]) -> Op:
        """The layer with its weight in two segments, the live input channels and the others."""
        raise GraphError(f"{self.name} is updated whole or not at all: use ratio 1")

    def with_delta(self) -> Op:
        """The layer with an int16 delta, its last input, to be added to its bias."""
        raise GraphError(f"{self.name} has no bias that int16 deltas could move: use bias_bits = 32")

    def leaner(self) -> Op | None:
        """The same function in less scratch memory, at more instructions; None where there is none."""
        return None

    def roomier(self, node: Node, room: int) -> Op | None:
        """The same function in up to `room` bytes of scratch memory, at fewer instructions; None where there is none."""
        return None

    def work(self, node: Node) -> Work:
        return Work(nbytes=sum(v.type.nbytes for v in (*node.inputs, *node.outputs)))

    def kernel(self, node: Node) -> Kernel | None:
        """The C call; None for an op that only renames its input's bytes."""
        raise GraphError(f"{self.name} at {node.where} has no C kernel")

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        """Input rows that output rows [first, last) read."""
        raise GraphError(f"{self.name} cannot be split into rows")

    def crop(self, node: Node, first: int, last: int) -> Op:
        """The op that computes output rows [first, last) from exactly the input rows of `needs`."""
        raise GraphError(f"{self.name} cannot be split into rows")

    def cut_rows(self, node: Node) -> int:
        """Rows that `cut` may divide: of the outputs, or of the gradient that an update reads; 0 when it cannot."""
        return node.outputs[0].type.shape[1] if self.splits_rows and len(node.outputs[0].type.shape) == 4 else 0

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        """The op that does rows [first, last) of the work from exactly these rows of these inputs and all of the others."""
        return self.crop(node, first, last), self.needs(node, first, last)

    def replaces(self, node: Node) -> tuple[tuple[int, int], ...]:
        """`in_place` at this node, where that depends on its shapes."""
        return self.in_place

    def walks(self, node: Node) -> tuple[Walk, ...]:
        """Outputs that may overlap an input at a distance, when the node runs whole."""
        return ()

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        """Small graphs (one node each) with odd shapes and edge cases, for the generic tests."""
        return ()


@dataclass(frozen=True, eq=False)
class Node:
    """One application of an op."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def where(self) -> str:
        """Name and origin, for messages."""
        out = self.outputs[0] if self.outputs else self.inputs[0]
        return f"{out.name} ({out.origin})" if out.origin else out.name

    def __str__(self) -> str:
        outs = ", ".join(f"{v}: {v.type}" for v in self.outputs)
        ins = ", ".join(map(str, self.inputs))
        return f"{outs} = {self.op}({ins})" if outs else f"{self.op}({ins})"


@dataclass(frozen=True, eq=False)
class Param:
    """A value with contents; mutable when the graph's `updates` name it."""

    value: Value
    data: Array


@dataclass(frozen=True, eq=False)
class Graph:
    """Inputs, parameters and nodes in default schedule order; `updates` pairs an old parameter with its next value."""

    inputs: tuple[Value, ...]
    params: tuple[Param, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    updates: tuple[tuple[Value, Value], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def param(self, value: Value) -> Param | None:
        return next((p for p in self.params if p.value is value), None)

    def producers(self) -> dict[Value, Node]:
        return {v: n for n in self.nodes for v in n.outputs}

    def consumers(self) -> dict[Value, list[Node]]:
        table: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                table.setdefault(value, []).append(node)
        return table

    def mutable(self) -> tuple[Param, ...]:
        """Parameters that training changes, in graph order."""
        old = {u[0] for u in self.updates}
        return tuple(p for p in self.params if p.value in old)

    def with_params(self, data: Mapping[str, Array]) -> Graph:
        """The same graph with new contents for the parameters named in `data`."""
        params = tuple(replace(p, data=data[p.value.name]) if p.value.name in data else p for p in self.params)
        return replace(self, params=params)

    def __str__(self) -> str:
        lines = [f"input {v}: {v.type}" for v in self.inputs]
        changed = {u[0] for u in self.updates}
        lines += [f"{'state' if p.value in changed else 'const'} {p.value}: {p.value.type}" for p in self.params]
        lines += [str(n) for n in self.nodes]
        lines += [f"next {old} = {new}" for old, new in self.updates]
        return "\n".join([*lines, "output " + ", ".join(map(str, self.outputs))]) + "\n"


class Builder:
    """Collects nodes in order; names are made unique, types inferred."""

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.params: list[Param] = []
        self.nodes: list[Node] = []
        self._names: set[str] = set()

    def reserve(self, names: Iterable[str]) -> None:
        self._names.update(names)

    def unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self._names:
            n += 1
            candidate = f"{name}_{n}"
        self._names.add(candidate)
        return candidate

    def input(self, name: str, type_: TensorType, origin: str = "") -> Value:
        value = Value(self.unique(name), type_, origin)
        self.inputs.append(value)
        return value

    def param(self, name: str, type_: TensorType, data: Array, origin: str = "") -> Value:
        if tuple(data.shape) != type_.shape:
            raise GraphError(f"parameter {name}: data has shape {data.shape}, its type says {type_.shape}")
        value = Value(self.unique(name), type_, origin)
        self.params.append(Param(value, np.ascontiguousarray(data, NUMPY[type_.dtype])))
        return value

    def add(self, op: Op, *inputs: Value, name: str = "", origin: str = "") -> tuple[Value, ...]:
        types = infer(op, inputs, origin or name)
        base = name or op.name
        names = [base] if len(types) == 1 else [f"{base}.{i}" for i in range(len(types))]
        outputs = tuple(Value(self.unique(n), t, origin) for n, t in zip(names, types, strict=True))
        self.nodes.append(Node(op, inputs, outputs))
        return outputs

    def one(self, op: Op, *inputs: Value, name: str = "", origin: str = "") -> Value:
        (value,) = self.add(op, *inputs, name=name, origin=origin)
        return value

    def graph(
        self,
        outputs: Sequence[Value],
        updates: Sequence[tuple[Value, Value]] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> Graph:
        return Graph(
            tuple(self.inputs), tuple(self.params), tuple(self.nodes), tuple(outputs), tuple(updates), dict(meta or {})
        )


def infer(op: Op, inputs: Sequence[Value], where: str) -> tuple[TensorType, ...]:
    """Output types of `op`; a GraphError names the place."""
    try:
        return op.infer(*(v.type for v in inputs))
    except GraphError as error:
        raise GraphError(f"{where or op.name}: {error}") from None


def verify(graph: Graph) -> None:
    """Read after write, written once, types re-inferred, parameters well-formed, an update after its last reader.

    Raises GraphError naming the first offender."""
    known = set(graph.inputs) | {p.value for p in graph.params}
    if len(known) != len(graph.inputs) + len(graph.params):
        raise GraphError("an input or parameter is listed twice")
    for p in graph.params:
        if tuple(p.data.shape) != p.value.type.shape or p.data.dtype != NUMPY[p.value.type.dtype]:
            raise GraphError(f"parameter {p.value.name}: contents {p.data.dtype}{p.data.shape} are not {p.value.type}")
    for node in graph.nodes:
        _verify_node(node, known)
        known.update(node.outputs)
    names = [v.name for v in known]
    if len(set(names)) != len(names):
        raise GraphError(f"two values are called {next(n for n in names if names.count(n) > 1)}")
    for value in (*graph.outputs, *(new for _, new in graph.updates)):
        if value not in known:
            raise GraphError(f"{value.name} is an output or an update but nothing computes it")
    _verify_updates(graph)


def _verify_node(node: Node, known: set[Value]) -> None:
    for value in node.inputs:
        if value not in known:
            raise GraphError(f"{node.where} reads {value.name} before it is written")
    for value in node.outputs:
        if value in known:
            raise GraphError(f"{value.name} is written twice, the second time at {node.where}")
    types = infer(node.op, node.inputs, node.where)
    if types != tuple(v.type for v in node.outputs):
        said = ", ".join(str(v.type) for v in node.outputs)
        raise GraphError(f"{node.where}: the rule of {node.op.name} gives {', '.join(map(str, types))}, not {said}")


def _verify_updates(graph: Graph) -> None:
    params = {p.value for p in graph.params}
    producer = {v: i for i, n in enumerate(graph.nodes) for v in n.outputs}
    for old, new in graph.updates:
        if old not in params:
            raise GraphError(f"{old.name} is updated but is not a parameter")
        if (old.type.shape, old.type.dtype) != (new.type.shape, new.type.dtype):
            raise GraphError(f"{old.name}: its next value {new.name} has another type, {new.type}")
        late = [n for n in graph.nodes[producer[new] + 1 :] if old in n.inputs]
        if late:
            raise GraphError(f"{late[0].where} reads {old.name} after its update")


class StopStep(Exception):
    """Raised by a node's semantics to end the training step early; later updates do not happen."""

    def __init__(self, progress: int) -> None:
        super().__init__(progress)
        self.progress = progress


@dataclass
class Result:
    """Values computed by a run, by name; `progress` as in mcg_step_t."""

    values: dict[str, Array]
    progress: int = 0

    def __getitem__(self, value: Value) -> Array:
        return self.values[value.name]

    def next_params(self, graph: Graph) -> dict[str, Array]:
        """Contents of the mutable parameters after the run (the old ones where the run stopped before the update)."""
        out = {old.name: self.values[old.name] for old, _ in graph.updates}
        out.update({old.name: self.values[new.name] for old, new in graph.updates if new.name in self.values})
        return out


def interpret(
    graph: Graph, feeds: Mapping[str, Array], mode: str | Callable[[Node], str] = "eval", until: Value | None = None
) -> Result:
    """Runs the graph in numpy with separate arrays.

    feeds: contents of the inputs by name.  mode: "eval" (integers), "real" (float64), or a choice per node.
    Stops after the node that writes `until`, when given.
    """
    values = {p.value.name: p.data for p in graph.params} | dict(feeds)
    for node in graph.nodes:
        how = mode if isinstance(mode, str) else mode(node)
        arrays = [values[v.name] for v in node.inputs]
        try:
            outputs = node.op.eval(node, *arrays) if how == "eval" else node.op.real(node, *arrays)
        except StopStep as stop:
            if how == "eval":
                return Result(values, stop.progress)
            continue
        for value, array in zip(node.outputs, outputs, strict=True):
            values[value.name] = array.astype(NUMPY[value.type.dtype]) if how == "eval" else array
        if until is not None and until in node.outputs:
            break
    return Result(values)


def rebuild(graph: Graph, nodes: Iterable[Node], **changes: Any) -> Graph:
    """The graph with other nodes (and other fields), parameters that nothing reads any more dropped."""
    kept = tuple(nodes)
    out = replace(graph, nodes=kept, **changes)
    used = {v for n in kept for v in n.inputs} | set(out.outputs) | {v for u in out.updates for v in u}
    return replace(out, params=tuple(p for p in out.params if p.value in used))
