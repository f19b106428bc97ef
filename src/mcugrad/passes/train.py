"""Passes over the training graph: prune, choose masks, fuse what must never be stored, update early."""

from __future__ import annotations

from dataclasses import replace

from mcugrad.ir import Builder, Graph, Node, Value, rebuild
from mcugrad.ops.backprop import Chain, ClampMask, GradMask, GradQuantize, GradSum, Stage
from mcugrad.ops.update import BiasStep, Update, WeightStep


def prune(graph: Graph) -> Graph:
    """Drops nodes that reach no output, no update and no early end."""
    live = set(graph.outputs) | {v for u in graph.updates for v in u}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not node.outputs or any(v in live for v in node.outputs):
            live.update(node.inputs)
            kept.append(node)
    return rebuild(graph, reversed(kept))


def one_bit_masks(graph: Graph) -> Graph:
    """Replaces an activation that is kept only for its clamp mask by the mask, 1 bit per element."""
    readers = graph.consumers()
    masks: dict[Value, Value] = {}
    for node in graph.nodes:
        if isinstance(node.op, GradMask):
            y = node.inputs[1]
            later = [n for n in readers[y] if n.op.phase in ("backward", "update") and not isinstance(n.op, GradMask)]
            if not later:
                masks[y] = Builder().one(ClampMask(), y, name=f"{y.name}.mask")
    nodes: list[Node] = []
    for old in graph.nodes:
        node = old
        if isinstance(node.op, GradMask) and node.inputs[1] in masks:
            node = replace(node, inputs=(node.inputs[0], masks[node.inputs[1]]))
        nodes.append(node)
        nodes += [Node(ClampMask(), (v,), (masks[v],)) for v in node.outputs if v in masks]
    return rebuild(graph, nodes)


def fuse_chains(graph: Graph) -> Graph:
    """Fuses each int32 input gradient with the sums, masks and requantizations that follow it."""
    readers = graph.consumers()
    fused: dict[Node, Node] = {}
    gone: set[Node] = set()
    for node in graph.nodes:
        if node.op.lowers or node.op.phase != "backward" or isinstance(node.op, GradSum | GradMask | GradQuantize):
            continue
        chain, members = _chain(node, readers)
        fused[node] = chain
        gone.update(members)
    nodes = [fused.get(n, n) for n in graph.nodes if n not in gone]
    return rebuild(graph, _sorted(nodes, graph))


def _chain(start: Node, readers: dict[Value, list[Node]]) -> tuple[Node, list[Node]]:
    """The fused node that starts at `start`, and the nodes it swallows."""
    stages: list[Stage] = []
    operands: list[Value] = []
    outputs: list[Value] = []
    members: list[Node] = []
    exponents: Value | None = None
    current, stage = start.outputs[0], Stage()
    while True:
        following = readers.get(current, [])
        for n in following:
            if isinstance(n.op, GradQuantize):
                stages.append(replace(stage, out=n.op))
                outputs += n.outputs
                members.append(n)
                exponents, stage = n.inputs[1], Stage()
        step = next((n for n in following if isinstance(n.op, GradSum | GradMask)), None)
        if step is None:
            break
        if stage.mask or (stage.add and isinstance(step.op, GradSum)):
            stages.append(stage)
            stage = Stage()
        stage = replace(stage, add=True) if isinstance(step.op, GradSum) else replace(stage, mask=True)
        operands.append(step.inputs[1])
        members.append(step)
        current = step.outputs[0]
    assert exponents is not None, "a chain always ends in a stored gradient"
    op = Chain(start.op, len(start.inputs), tuple(stages))
    return Node(op, (*start.inputs, exponents, *operands), tuple(outputs)), members


def fuse_updates(graph: Graph) -> Graph:
    """Fuses each parameter gradient with its step, so that it is never stored."""
    readers, nodes, gone = graph.consumers(), [], set()
    for node in graph.nodes:
        if node in gone:
            continue
        follow = readers.get(node.outputs[0], []) if len(node.outputs) == 1 else []
        if len(follow) == 1 and isinstance(follow[0].op, BiasStep | WeightStep):
            step = follow[0]
            assert isinstance(step.op, BiasStep | WeightStep)
            op = Update(node.op, len(node.inputs), step.op)
            nodes.append(Node(op, (*node.inputs, *step.inputs[1:]), step.outputs))
            gone.add(step)
        else:
            nodes.append(node)
    return rebuild(graph, _sorted(nodes, graph))


def _sorted(nodes: list[Node], graph: Graph) -> list[Node]:
    """A stable order in which every value is written before it is read, and no old parameter is read too late."""
    ready = set(graph.inputs) | {p.value for p in graph.params}
    waiting, order = list(nodes), []
    while waiting:
        node = next(n for n in waiting if all(v in ready for v in n.inputs))
        waiting.remove(node)
        order.append(node)
        ready.update(node.outputs)
    return order


def update_early(graph: Graph) -> Graph:
    """Moves each update to directly after its operands and the last other reader of the old values."""
    nodes = list(graph.nodes)
    old = {new: value for value, new in graph.updates}
    for node in [n for n in graph.nodes if n.op.phase == "update"]:
        here = nodes.index(node)
        for source, out in node.op.aliased:
            old.setdefault(node.outputs[out], old.get(node.inputs[source], node.inputs[source]))
        replaced = {old[v] for v in node.outputs if v in old}
        nodes.remove(node)
        nodes.insert(_earliest(node, replaced, nodes, here), node)
    return rebuild(graph, nodes)


def _earliest(node: Node, replaced: set[Value], nodes: list[Node], here: int) -> int:
    """First place for an update that stood at `here`; it never crosses an early end of the step."""
    at = 0
    for i, other in enumerate(nodes[:here]):
        ends_step = not other.outputs
        if ends_step or set(other.outputs) & set(node.inputs) or replaced & set(other.inputs):
            at = i + 1
    return at
