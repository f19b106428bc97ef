"""What learning minimises: the loss node that closes a graph, its target, and the unit of the gradient it gives."""

from __future__ import annotations

from dataclasses import dataclass

from mcugrad.ir import Graph, GraphError, TensorType
from mcugrad.loss import Loss
from mcugrad.ops.head import HEAD_ONE, Head
from mcugrad.ops.loss import SoftmaxCrossEntropy
from mcugrad.ops.losses import HEAD_FRACTION, Logits, MeanSquaredError, SigmoidCrossEntropy, label_bits


@dataclass(frozen=True)
class Ending:
    """The loss of a graph.

    op: reads the logits and the target, gives a score s32 [1] and the gradient of the logits s32 [K] in units of
    2**-bits of a head, of `unit` otherwise.  target: its type, None where the sample is the target.  skips: the score is a
    probability (Q15), so that a sample can be right already."""

    op: SoftmaxCrossEntropy | SigmoidCrossEntropy | MeanSquaredError
    target: TensorType | None
    bits: int
    unit: float
    skips: bool

    def loss_of(self, score: int) -> float:
        """The loss that a score stands for: -ln((p + 1/2) / 32768) of a probability, the mean squared error of numbers."""
        return self.op.loss_of(score)


def ending(loss: Loss, graph: Graph) -> Ending:
    """How a graph that ends in a Head or in Logits learns under `loss`.  Raises GraphError where it cannot."""
    last = graph.nodes[-1]
    x, outputs = last.inputs[0].type, last.outputs[0].type.elements
    if not isinstance(last.op, Head | Logits) or x.quant is None:
        raise GraphError(f"{last.where} gives no logits: attach a head, or the model's own output")
    head = isinstance(last.op, Head)
    step = x.quant.scale[0] / HEAD_ONE if head else x.quant.scale[0]  # of a logit
    numbers = TensorType((outputs,), "s32")
    if loss is Loss.SOFTMAX:
        return Ending(SoftmaxCrossEntropy(step * HEAD_ONE), TensorType((1,), "s32"), 15, 2.0**-15, True)
    if loss is Loss.SIGMOID:
        bits = label_bits(outputs) if head else 15
        return Ending(SigmoidCrossEntropy(step * HEAD_ONE, bits), numbers, bits, 2.0**-bits, True)
    if loss is Loss.AUTOENCODER and head:
        raise GraphError("a new head cannot learn to reconstruct the sample: train the model's own output")
    op = MeanSquaredError(step, outputs, head)
    return Ending(op, None if loss is Loss.AUTOENCODER else numbers, HEAD_FRACTION, op.unit, False)
