"""Weight updates in more scratch memory than they ask for, for the generic op tests: enough for a round less, and any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mcugrad.ir import Graph
from mcugrad.ops.depthwise import DepthwiseWeightGrad
from mcugrad.ops.example_grad import Shape, weight_update
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import Update

SAME = Window((3, 3), (1, 1), (1, 1, 1, 1))
WIDE = (
    Shape(11, 9, 27, 5),
    Shape(9, 8, 29, 4, channels=tuple(range(2, 27))),
    Shape(9, 8, 3, 4, SAME),
)
APART = (
    Shape(3, 4, 7, 7, Window((7, 7), (1, 1), (3, 3, 3, 3))),
    Shape(8, 8, 4, 4, Window((5, 5), (2, 2), (1, 1, 2, 2))),
    Shape(1, 14, 8, 8, Window((1, 5), (1, 1), (0, 2, 0, 2))),
    Shape(4, 2, 4, 4, SAME),
    Shape(4, 6, 4, 4, Window((3, 3), (1, 1), (5, 1, 5, 1))),
    Shape(5, 9, 4, 4, SAME),
    Shape(4, 4, 9, 9, Window((5, 5), (1, 1), (2, 2, 2, 2))),
    Shape(5, 13, 8, 8, Window((7, 7), (1, 1), (3, 3, 3, 3))),
    Shape(8, 12, 4, 4, Window((7, 7), (2, 2), (3, 2, 3, 2))),
    Shape(6, 11, 4, 4, Window((4, 4), (1, 1), (1, 1, 2, 2))),
    Shape(3, 1, 4, 4, Window((3, 3), (1, 1), (2, 1, 2, 1))),
    Shape(5, 15, 4, 4, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(6, 28, 5, 5, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    Shape(5, 1, 4, 4, Window((5, 5), (2, 2), (2, 2, 2, 2))),
    Shape(4, 10, 5, 5, Window((3, 9), (2, 1), (5, 4, 2, 4))),
    Shape(7, 17, 4, 4, Window((3, 11), (3, 2), (0, 6, 1, 0))),
)


def roomy_updates() -> Iterator[Graph]:
    """Of a convolution as much as pays in any room, of a depthwise one any rows at once."""
    for i, shape in enumerate(WIDE):
        graph = weight_update(500 + i, shape, (4, 8, 0)[i % 3], 2, i % 2 == 0)
        node = graph.nodes[-1]
        for op in filter(None, dict.fromkeys(node.op.roomier(node, room) for room in range(1 << 10, 1 << 15, 64))):
            yield replace(graph, nodes=(*graph.nodes[:-1], replace(node, op=op)))
    for i, shape in enumerate(APART):
        graph = weight_update(600 + i, shape, (4, 8, 0)[i % 3], 2, i % 2 == 0, separate=True)
        for rows in {1, shape.h[1] // 2 + 1, shape.h[1]}:
            yield apart(graph, rows)


def apart(graph: Graph, rows: int) -> Graph:
    """The update of a depthwise weight which takes so many rows apart at once."""
    (node,) = graph.nodes
    assert isinstance(node.op, Update) and isinstance(node.op.grad, DepthwiseWeightGrad)
    op = replace(node.op, grad=replace(node.op.grad, rows=rows))
    return replace(graph, nodes=(replace(node, op=op),))
