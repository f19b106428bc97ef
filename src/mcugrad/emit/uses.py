"""What a program's calls ask of the kernels, so that the device's compiler leaves out the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mcugrad.ir import Kernel, Operand, Struct
from mcugrad.memory.schedule import Step
from mcugrad.ops.apart import together
from mcugrad.program import Program

_LANES = 4  # channels that packed kernels take at once
_MOST_TAPS = 7  # MCG_MOST_TAPS of csrc/ops/depthwise_span.h
_POSITIONS = 128  # POSITIONS of csrc/ops/depthwise_input_grad.c
_LEAST_SHIFT, _MOST_SCALED = 33, 54  # shifts of a requantization that the packed kernels take, and those of 3x3 windows
_SMALL = 64  # SMALL of csrc/ops/depthwise_packed.c
_Fields = dict[str, Any]


def header(program: Program, text: str) -> str:
    """`text`, the uses.h of the host, with 0 for what no call of the program asks."""
    nodes = {step.node: None for step in program.schedule if isinstance(step, Step)}
    return only(used(kernel for node in nodes if (kernel := node.op.kernel(node)) is not None), text)


def only(found: set[str], text: str) -> str:
    """uses.h with 0 for what is not among `found`."""
    lines = []
    for line in text.splitlines():
        name = line.split()[1] if line.startswith("#define MCG_USES_") and not line.endswith("_H") else ""
        lines.append(line if not name or name.removeprefix("MCG_USES_") in found else line.replace(" 1 ", " 0 ", 1))
    return "\n".join([*lines, ""])


def used(kernels: Iterable[Kernel]) -> set[str]:
    """Names of csrc/uses.h without their prefix."""
    return {name for kernel in kernels for name in (*_of_window(kernel), *_of_structs(kernel.args))}


def _of_window(kernel: Kernel) -> Iterator[str]:
    """By the function and its mcg_conv2d_t."""
    window = next((dict(a.fields) for a in kernel.args if isinstance(a, Struct) and a.ctype == "mcg_conv2d_t"), None)
    if window is None:
        return
    if kernel.function == "mcg_conv2d" and _has_gaps(window):
        yield "GAPS"
    if kernel.function == "mcg_depthwise" and not (kernel.scratch and _is_packed(window)):
        yield "DEPTHWISE_PLAIN"
    if kernel.function == "mcg_depthwise" and _has_rows(window):
        yield _rows(window)
    if kernel.function == "mcg_conv2d_input_grad" and not _is_pointwise(window):
        yield "WINDOW_GRADS"
    if kernel.function == "mcg_conv2d_update" and not _is_pointwise(window):
        yield "WINDOW_UPDATES"
    if kernel.function == "mcg_avg_pool_grad_s32" and not _is_global(window):
        yield "POOL_WINDOWS"
    if kernel.function == "mcg_depthwise_input_grad":
        yield from _of_depthwise_grad(window)
    if kernel.function == "mcg_depthwise_update":
        yield from _of_depthwise_update(kernel, window)


def _of_depthwise_grad(p: _Fields) -> Iterator[str]:
    if not (_has_spans(p) and p["in_c"] % _LANES == 0):
        yield "DEPTHWISE_TAPS"
    if p["stride_h"] == p["stride_w"] == 1 and not _has_gaps(p) and 2 <= p["kernel_w"] <= _MOST_TAPS and not _is_square(p):
        yield _rows(p)
    if _has_quarters(p):
        yield "DEPTHWISE_QUARTERS"
    if _has_halves(p):
        yield "DEPTHWISE_HALVES"
        if p["in_h"] % 2:
            yield "SINGLE_ROWS"


def _of_depthwise_update(kernel: Kernel, window: _Fields) -> Iterator[str]:
    rows, few = kernel.args[4], window["in_c"] % _LANES > 0  # rows that are taken apart at once
    if rows:
        yield "UPDATE_PLANES"
    if rows and _has_fives(window):
        yield "UPDATE_FIVES"
    if few:
        yield "UPDATE_FEW"
    if few or not rows:
        yield "UPDATE_TAPS"


def _rows(p: _Fields) -> str:
    """Rows that mcg_depthwise_line takes."""
    return f"ROWS_{p['stride_w']}{p['kernel_w'] // 2 + 1}"


def _has_rows(p: _Fields) -> bool:
    """Whether mcg_depthwise_line may take part in a forward call."""
    if p["stride_w"] > 2 or not 2 <= p["kernel_w"] <= _MOST_TAPS:
        return False
    small = p["in_h"] <= p["kernel_h"] or p["in_h"] * p["in_w"] <= _SMALL
    three = p["kernel_h"] == p["kernel_w"] == 3 and max(p["shift"].data) <= _MOST_SCALED
    return not three or (small and not _is_square(p))


def _is_square(p: _Fields) -> bool:
    """MCG_SQUARE or a 3x3 MCG_FOUR of csrc/ops/depthwise_plane.c"""
    around = p["kernel_h"] == p["kernel_w"] == 3 and p["stride_h"] == p["stride_w"] == 1 and p["pad_left"] == 1
    return bool(around and p["in_w"] == p["out_w"] and p["in_w"] % _LANES == 0)


def _has_gaps(p: _Fields) -> bool:
    return bool(max(p["dilation_h"], p["dilation_w"]) > 1)


def _has_spans(p: _Fields) -> bool:
    """has_spans of csrc/ops/depthwise_input_grad.c"""
    sh, sw = p["stride_h"], p["stride_w"]
    return bool(max(sh, sw) <= 2 and not _has_gaps(p) and p["kernel_h"] >= sh and sw <= p["kernel_w"] <= _MOST_TAPS * sw)


def _has_quarters(p: _Fields) -> bool:
    """has_quarters of csrc/ops/depthwise_input_grad.c"""
    halves = p["stride_h"] == p["stride_w"] == 2 and not _has_gaps(p)
    high = p["in_h"] > 1 and (p["in_h"] + 1) // 2 == p["out_h"]
    broad = p["in_w"] == 2 * p["out_w"] and p["out_w"] % _LANES == 0 and 2 * p["in_w"] <= _POSITIONS
    axes = ((p["kernel_h"], p["pad_top"]), (p["kernel_w"], p["pad_left"]))
    fits = all(kernel > 4 and pad <= 2 and kernel <= pad + 4 for kernel, pad in axes)
    return bool(halves and high and broad and fits)


def _has_halves(p: _Fields) -> bool:
    """has_halves of csrc/ops/depthwise_input_grad.c"""
    taps = p["kernel_h"] == p["kernel_w"] == 3 and not _has_gaps(p)
    return bool(taps and p["stride_h"] == p["stride_w"] == 2 and p["pad_left"] <= 1 and p["in_w"] == 2 * p["out_w"])


def _has_fives(p: _Fields) -> bool:
    stride = p["stride_w"]
    return any(5 in together(-(-(p["kernel_w"] - first) // stride)) for first in range(stride))


def _is_pointwise(p: _Fields) -> bool:
    """mcg_is_pointwise of csrc/ops/backward.h"""
    ones = ("kernel_h", "kernel_w", "stride_h", "stride_w", "groups")
    return all(p[name] == 1 for name in ones) and (p["in_h"], p["in_w"]) == (p["out_h"], p["out_w"])


def _is_global(p: _Fields) -> bool:
    """is_global of csrc/ops/avg_pool_grad.c"""
    one = (p["out_h"], p["out_w"]) == (1, 1) and (p["kernel_h"], p["kernel_w"]) == (p["in_h"], p["in_w"])
    return bool(one and p["pad_top"] == p["pad_left"] == 0 and p["in_c"] % _LANES == 0)


def _is_packed(p: _Fields) -> bool:
    """Whether mcg_depthwise_packed surely takes the call."""
    fits = p["in_c"] >= _LANES and p["stride_w"] <= 2 and 2 <= p["kernel_w"] <= 7 and not _has_gaps(p)
    within = 0 <= p["pad_top"] < p["kernel_h"] and (p["out_h"] - 1) * p["stride_h"] - p["pad_top"] < p["in_h"]
    return bool(fits and within and p["pad_left"] >= 0 and min(p["shift"].data) >= _LEAST_SHIFT)


def _of_structs(items: Iterable[Any]) -> Iterator[str]:
    """By the fields of the structs in the arguments, however deep."""
    for item in items:
        if isinstance(item, tuple):
            yield from _of_structs(item)
        if isinstance(item, Struct):
            yield from _of_fields(dict(item.fields))
            yield from _of_structs(value for _, value in item.fields)


def _of_fields(fields: _Fields) -> Iterator[str]:
    if isinstance(fields.get("sum"), Struct):
        yield "SUMS"
    if "hold" in fields:
        yield "HELD"
    if _present(fields.get("mu")):
        yield "MEANS"
    if _present(fields.get("delta")):
        yield "DELTAS"
    if fields.get("residual_bits") in (0, 8):
        yield f"RESIDUAL_{fields['residual_bits']}"
    if fields.get("residual_bits") == 4 and fields["live"] % 2:
        yield "ODD_ROWS"
    if "mask" in fields and _present(fields["mask"]) and not dict(fields["p"].fields)["mask_bits"]:
        yield "BYTE_MASKS"


def _present(item: Any) -> bool:
    return isinstance(item, Operand) and item.value is not None
