"""The runner: applies a pipeline, verifies after each pass, and on request executes before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mcugrad.ir import Array, Graph, GraphError, interpret, verify

Pass = Callable[[Graph], Graph]


def run(graph: Graph, pipeline: Sequence[Pass], feeds: Mapping[str, Array] | None = None) -> Graph:
    """The graph after all passes.  With `feeds`, outputs and next parameters must stay equal bit for bit.

    Raises GraphError naming the pass that broke a rule or changed a result."""
    verify(graph)
    for step in pipeline:
        after = step(graph)
        try:
            verify(after)
            if feeds is not None:
                _compare(graph, after, feeds)
        except GraphError as error:
            raise GraphError(f"pass {step.__name__}: {error}") from None
        graph = after
    return graph


def _compare(before: Graph, after: Graph, feeds: Mapping[str, Array]) -> None:
    a, b = interpret(before, feeds), interpret(after, feeds)
    if a.progress != b.progress:
        raise GraphError(f"the step ends at {b.progress}, not at {a.progress}")
    for old, new in zip(before.outputs, after.outputs, strict=True):
        if old.name in a.values and not np.array_equal(a[old], b[new]):
            raise GraphError(f"output {old.name} changed")
    next_a, next_b = a.next_params(before), b.next_params(after)
    for name, data in next_a.items():
        if not np.array_equal(data, next_b[name]):
            raise GraphError(f"the next value of {name} changed")
