"""Which function translates which ONNX operator."""

from __future__ import annotations

from collections.abc import Callable

from mcugrad.importers.onnx_arith import FUNCTIONS, arithmetic, clip, prelu, relu, sigmoid, softmax, table
from mcugrad.importers.onnx_layers import batch_norm, conv, gemm, matmul
from mcugrad.importers.onnx_move import concat, cut, gather, pad, resize, split, view
from mcugrad.importers.onnx_pools import global_pool, pool, reduce_mean
from mcugrad.importers.onnx_state import State
from mcugrad.importers.source import OnnxNode

Handler = Callable[[State, OnnxNode], None]

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(FUNCTIONS, table),
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), arithmetic),
    **dict.fromkeys(("AveragePool", "MaxPool"), pool),
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"), view),
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "Gather": gather,
    "Gemm": gemm,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
    **dict.fromkeys(("LogSoftmax", "Softmax"), softmax),
    "MatMul": matmul,
    "PRelu": prelu,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "Relu": relu,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "Sigmoid": sigmoid,
    "Slice": cut,
    "Split": split,
}
