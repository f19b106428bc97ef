"""An update whose gradient comes in parts: int32 partial sums, and one step when they are complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, RowNeed, Scratch, Struct, TensorType, Value, Work
from mcugrad.ops.update import BiasStep, Update, WeightStep

Array = NDArray[Any]


@dataclass(frozen=True)
class Accumulate(Op):
    """One part of the gradient of `update`.

    Inputs: those of the gradient; unless it is the first, the sum of the parts before (int32, of the parameter's shape);
    in the last part what the step reads besides the gradient.  Output: the sum with this part, in the bytes of the sum
    before; of the last part, what the update gives.  Requantized once, so that the parts do not change a bit.
    """

    update: Update
    first: bool
    last: bool
    phase = "update"

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        if self.last:
            return tuple((i + (not self.first), o) for i, o in self.update.aliased)
        return () if self.first else ((self.update.grad_inputs, 0),)

    def _gradient(self, *types: TensorType) -> TensorType:
        (gradient,) = self.update.grad.infer(*types[: self.update.grad_inputs])
        if not self.first and types[self.update.grad_inputs] != gradient:
            raise GraphError(f"the parts before are {types[self.update.grad_inputs]}, not {gradient}")
        return gradient

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        gradient = self._gradient(*types)
        rest = types[self.update.grad_inputs + (not self.first) :]
        return self.update.step.infer(gradient, *rest) if self.last else (gradient,)

    def _parts(self, node: Node) -> tuple[Node, tuple[Value, ...], Value]:
        """The gradient's node, the operands of the step, the gradient."""
        n = self.update.grad_inputs
        gradient = Value("gradient", self._gradient(*(v.type for v in node.inputs)))
        return Node(self.update.grad, node.inputs[:n], (gradient,)), node.inputs[n + (not self.first) :], gradient

    def _run(self, node: Node, how: str, *arrays: Array) -> tuple[Array, ...]:
        n = self.update.grad_inputs
        grad, rest, gradient = self._parts(node)
        (total,) = getattr(self.update.grad, how)(grad, *arrays[:n])
        total = total if self.first else total + arrays[n]
        if not self.last:
            return (total,)
        step = Node(self.update.step, (gradient, *rest), node.outputs)
        outputs: tuple[Array, ...] = getattr(self.update.step, how)(step, total, *arrays[n + (not self.first) :])
        return outputs

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "eval", *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "real", *arrays)

    def work(self, node: Node) -> Work:
        return self.update.grad.work(self._parts(node)[0])

    def cut_rows(self, node: Node) -> int:
        return self.update.grad.cut_rows(self._parts(node)[0])

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        grad, needs = self.update.grad.cut(self._parts(node)[0], first, last)
        return replace(self, update=replace(self.update, grad=grad)), needs

    def roomier(self, node: Node, room: int) -> Op | None:
        grad = self.update.grad.roomier(self._parts(node)[0], room)
        return None if grad is None else replace(self, update=replace(self.update, grad=grad))

    def kernel(self, node: Node) -> Kernel:
        grad, rest, gradient = self._parts(node)
        kernel = self.update.grad.kernel(grad)
        if kernel is None:
            raise GraphError(f"{self.update.grad.name} has no kernel to accumulate with")
        stored = node.outputs[0] if not self.last else None if self.first else node.inputs[self.update.grad_inputs]
        fields = (
            ("sum", Operand(stored, "int32_t", const=False)),
            ("add", int(not self.first)),
            ("more", int(not self.last)),
        )
        total = (("sum", Struct("mcg_sum_t", fields)),) if stored is not None else ()
        step = self.update.step
        if self.last:
            struct = step.struct(rest, node.outputs)
            return replace(kernel, args=(*kernel.args, replace(struct, fields=(*struct.fields, *total)), Scratch()))
        partial = Struct(_ctype(step), (step.constants(gradient.type.shape), *total))
        return replace(kernel, args=(*kernel.args, partial, Scratch()))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_piece import accumulations

        return accumulations()


def _ctype(step: BiasStep | WeightStep) -> str:
    return "mcg_bias_step_t" if isinstance(step, BiasStep) else "mcg_weight_step_t"
