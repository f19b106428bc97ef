"""What every importer returns: a graph that ends in the features, the model's own classifier, and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from mcugrad.errors import McugradError
from mcugrad.ir import Graph, Node
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.preprocess import Preprocess

Array = NDArray[Any]

SHOWN_BLOCKERS = 20
TFLITE, PYTORCH = "tflite", "pytorch"


@dataclass(frozen=True)
class Blocker:
    """One reason why a model cannot be imported: where (the model's own node name), why, and what to do about it."""

    node: str
    op: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node} ({self.op}): {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Layer:
    """A row of the layer table.  Shapes are NHWC; `macs` are those of one forward pass."""

    name: str
    kind: str
    origin: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Report:
    """What `check` says: the layers that were understood, every blocker, and remarks worth knowing."""

    name: str
    format: str
    layers: tuple[Layer, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    notes: tuple[str, ...] = ()
    supported: tuple[tuple[str, int], ...] = ()  # (foreign operator, how many), sorted

    @property
    def ok(self) -> bool:
        return not self.blockers

    @property
    def params(self) -> int:
        """Weights and biases of all layers, the classifier included."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, the classifier included."""
        return sum(layer.macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "ok": self.ok, "params": self.params, "macs": self.macs, "supported": dict(self.supported)}

    def require(self) -> None:
        """Raises McugradError that lists the blockers, if there are any."""
        if self.ok:
            return
        count = len(self.blockers)
        lines = [f"  {b}" for b in self.blockers[:SHOWN_BLOCKERS]]
        if count > SHOWN_BLOCKERS:
            lines.append(f"  ... and {count - SHOWN_BLOCKERS} more: run `mcugrad check` for all")
        what = "1 thing stands" if count == 1 else f"{count} things stand"
        raise McugradError("\n".join([f"{self.name} cannot be imported, {what} in the way:", *lines]))


@dataclass(frozen=True, eq=False)
class Classifier:
    """The model's own last fully connected layer: weight float64 [F, K], rows in NHWC order of the features; bias [K]."""

    weight: Array
    bias: Array
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Imported:
    """A model as mcugrad sees it.

    `graph` has one input and one output, the features; it is float (f32) or already quantized (s8).  `classifier` is
    None when the model does not end in a fully connected layer.  `preprocess` is None when the file says nothing.  `data`:
    the file itself, where learned weights can go back into its format.  `unit`: the graph's input in the units of the file's.
    """

    graph: Graph
    name: str
    format: str
    preprocess: Preprocess | None
    classifier: Classifier | None
    report: Report
    data: bytes | None = None
    unit: float = 1.0


def layer_table(nodes: Iterable[Node]) -> tuple[Layer, ...]:
    """One row per node, parameters counted from its inputs of rank 1 and 4 that no node computes."""
    nodes = list(nodes)
    computed = {v for n in nodes for v in n.outputs}
    first = nodes[0].inputs[0] if nodes else None
    rows = []
    for n in nodes:
        x, y = n.inputs[0], n.outputs[0]
        params = sum(v.type.elements for v in n.inputs if v not in computed and v is not first)
        rows.append(Layer(y.name, layer_kind(n), y.origin, x.type.shape, y.type.shape, params, n.op.work(n).macs))
    return tuple(rows)


def layer_kind(node: Node) -> str:
    """The field's name for what the node does."""
    op, x, y = node.op, node.inputs[0].type, node.outputs[0].type
    if isinstance(op, Conv2d):
        whole = op.window.kernel == x.shape[1:3] and y.shape[1:3] == (1, 1) and op.groups == 1
        return "fully connected" if whole else f"conv {op.window.kernel[0]}x{op.window.kernel[1]}"
    if isinstance(op, DepthwiseConv2d):
        return f"depthwise {op.window.kernel[0]}x{op.window.kernel[1]}"
    if isinstance(op, Clamp):
        return "relu" if (op.low, op.high) == (0, float("inf")) else f"clamp [{op.low:g}, {op.high:g}]"
    return op.name.replace("_", " ")


def count_ops(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """(operator, how many), sorted by name."""
    return tuple(sorted(Counter(names).items()))
