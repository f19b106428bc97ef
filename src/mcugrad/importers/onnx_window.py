"""The geometry of ONNX windows: strides, padding in all its spellings, dilation; one or two dimensions."""

from __future__ import annotations

from dataclasses import replace

from mcugrad.importers.onnx_state import Blocked
from mcugrad.importers.source import OnnxNode
from mcugrad.ops.spatial import Window

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def pair(node: OnnxNode, key: str, default: Pair) -> Pair:
    """An attribute for height and width; that of a signal is for its width."""
    given = node.attributes.get(key, default)
    if len(given) not in {1, 2}:
        raise Blocked(f"{key} {list(given)} is neither 1-d nor 2-d", "use the 2-d form of the layer")
    return (default[0] if len(given) == 1 else int(given[0])), int(given[-1])


def _padding(node: OnnxNode, size: Pair, kernel: Pair, stride: Pair) -> Padding:
    """(top, left, bottom, right) of explicit pads, auto_pad and ceil_mode for an input of `size`; kernel: with dilation."""
    auto = node.attributes.get("auto_pad", b"NOTSET").decode()
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        (top, left), (bottom, right) = (small, large) if auto == "SAME_UPPER" else (large, small)
        return top, left, bottom, right
    given = (0, 0, 0, 0) if auto == "VALID" else node.attributes.get("pads", (0, 0, 0, 0))
    if len(given) not in {2, 4}:
        raise Blocked(f"pads {list(given)} are neither 1-d nor 2-d", "use the 2-d form of the layer")
    top, left, bottom, right = (int(p) for p in (given if len(given) == 4 else (0, given[0], 0, given[1])))
    if node.attributes.get("ceil_mode", 0):
        bottom = _ceil(size[0], top, bottom, kernel[0], stride[0])
        right = _ceil(size[1], left, right, kernel[1], stride[1])
    return top, left, bottom, right


def _ceil(size: int, before: int, after: int, kernel: int, stride: int) -> int:
    """Padding at the end that makes the floor rule give ceil_mode's size; a window must start before the end padding."""
    out = -(-(size + before + after - kernel) // stride) + 1
    if (out - 1) * stride >= size + before:
        out -= 1
    return max(after, (out - 1) * stride + kernel - size - before)


def window_of(node: OnnxNode, size: Pair, kernel: Pair) -> Window:
    """The window of a convolution or pool over a map of `size`."""
    stride = pair(node, "strides", (1, 1))
    dilation = pair(node, "dilations", (1, 1))
    if min(*stride, *kernel, *dilation) < 1:
        raise Blocked(f"kernel {list(kernel)}, stride {list(stride)} or dilation {list(dilation)}", "export the model again")
    window = Window(kernel, stride, dilation=dilation)
    return replace(window, padding=_padding(node, size, window.extent, stride))
