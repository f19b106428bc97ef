"""The real unit of an image input: 0..1 trains where 0..255 diverges, and the integers are the same."""

from __future__ import annotations

from dataclasses import replace

from mcugrad.ir import Graph, Node, Quant, Value
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.preprocess import Input, Preprocess

COARSE = 0.5  # an image with a larger scale has pixels of about 0..255
UNIT = 256.0  # a power of two: products of scales stay the same floating-point numbers


def image_preprocess(graph: Graph) -> Preprocess | None:
    """pixel - 128 for an int8 input that looks like an image whose range starts or is centred at black; else None."""
    _, height, width, channels = graph.inputs[0].type.shape
    quant = graph.inputs[0].type.quant
    if quant is None or channels not in {1, 3} or min(height, width) < 2 or not (quant.zero == -128 or abs(quant.zero) <= 1):
        return None
    return Preprocess(Input.INT8, size=(height, width))


def in_unit_range(graph: Graph) -> Graph:
    """The same integer function with an image of 0..255 read as 0..1: its scale divided, the first weights' multiplied.

    Weight steps grow with the cube of that factor (numerics.md, QAS), so that a first layer reading 0..255 diverges at
    learning rates that suit all others."""
    (image,) = graph.inputs
    readers = graph.consumers().get(image, [])
    if image_preprocess(graph) is None or not image.type.quant or image.type.quant.scale[0] < COARSE:
        return graph
    if image in graph.outputs or not all(isinstance(n.op, Conv2d | DepthwiseConv2d) for n in readers):
        return graph
    swap = {image: _scaled(image, 1 / UNIT), **{n.inputs[1]: _scaled(n.inputs[1], UNIT) for n in readers}}
    nodes = [Node(n.op, tuple(swap.get(v, v) for v in n.inputs), n.outputs) for n in graph.nodes]
    params = tuple(replace(p, value=swap.get(p.value, p.value)) for p in graph.params)
    return replace(graph, inputs=(swap[image],), params=params, nodes=tuple(nodes))


def unit_of(before: Graph, after: Graph) -> float:
    """What a number of the file's input is in the graph: 1 / UNIT where the image became 0..1."""
    return 1.0 if before is after else 1 / UNIT


def _scaled(value: Value, factor: float) -> Value:
    quant = value.type.quant or Quant((1.0,))
    scaled = replace(quant, scale=tuple(s * factor for s in quant.scale))
    return replace(value, type=replace(value.type, quant=scaled))


def own_preprocess(graph: Graph, integers: bool) -> Preprocess | None:
    """What a quantized graph reads when its file says nothing: an image of integers, or of real numbers, as pixel - 128
    where that is the same; else an image of real numbers as pixel / 255; else None.

    integers: whether the file's input holds 8-bit integers."""
    quant, image = graph.inputs[0].type.quant, image_preprocess(graph)
    _, height, width, channels = graph.inputs[0].type.shape
    if integers or (quant is not None and quant.zero == -128 and abs(quant.scale[0] - 1) < 0.01):
        return image
    if channels not in {1, 3} or min(height, width) < 2:
        return None
    return Preprocess(Input.FLOAT, scale=1 / 255, size=(height, width))
