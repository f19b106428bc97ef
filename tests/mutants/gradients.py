"""Known bugs of the backward pass: gradient rules, stored gradients and their exponents."""

from mutants.mutant import FINITE, NUMERICS, Mutant

HEAD_ORDER_OLD = """        if back:
            gf = self.add(HeadInputGrad(), weight, self.g, name="features.grad")
        if self.plan.selection.head:
            update = HeadUpdate(self.plan.rate, self.loss.bits, self.samples)
            held = [self._held(v, h) for v, h in zip((weight, bias), update.holds, strict=True) if self.samples > 1]
            count = self._counter("head") if held else ()
            new = self.build.add(update, x, self.g, weight, bias, self.control, *held, *count, name="head.next")
            self.updates += zip((weight, bias, *held), new, strict=True)
            self._count(count)
        if back:
"""
HEAD_ORDER_NEW = """        new = (weight, bias)
        if self.plan.selection.head:
            update = HeadUpdate(self.plan.rate, self.loss.bits, self.samples)
            held = [self._held(v, h) for v, h in zip((weight, bias), update.holds, strict=True) if self.samples > 1]
            count = self._counter("head") if held else ()
            new = self.build.add(update, x, self.g, weight, bias, self.control, *held, *count, name="head.next")
            self.updates += zip((weight, bias, *held), new, strict=True)
            self._count(count)
        if back:
            gf = self.add(HeadInputGrad(), new[0], self.g, name="features.grad")
        if back:
"""
UNITS = "tests/test_gradients.py::test_integer_gradient_of_the_logits_stands_for_the_derivative_of_the_loss"
LOSSES = "tests/test_gradients.py::test_real_gradients_of_every_loss_equal_finite_differences"

MUTANTS = (
    Mutant(
        "parts-from-the-start",
        "ops/concat.py",
        "tuple(start if i == self.axis else 0 for i in (1, 2, 3))",
        "tuple(0 for i in (1, 2, 3))",
        (f"{FINITE}[13]", f"{FINITE}[14]"),
        "each part of a concatenation gets its own slice of the gradient",
    ),
    Mutant(
        "gate-not-summed",
        "ops/mul.py",
        "(product.sum(axis=axes, keepdims=True),)",
        "(product.mean(axis=axes, keepdims=True),)",
        (f"{FINITE}[20]", f"{FINITE}[42]"),
        "a gate is read at every position",
    ),
    Mutant(
        "difference-is-a-sum",
        "ops/add.py",
        "        return (-arrays[0].astype(np.float64),)",
        "        return (arrays[0].astype(np.float64),)",
        (f"{FINITE}[21]", f"{FINITE}[43]"),
        "what is subtracted gets the gradient with its sign turned",
    ),
    Mutant(
        "table-without-mask",
        "ops/lut.py",
        "        return np.where(passes(y), slope, 0.0)",
        "        return slope",
        (f"{FINITE}[19]",),
        "the ends of a table's outputs are a clamp",
    ),
    Mutant(
        "half-the-squared-error",
        "ops/losses.py",
        "else 2 * self.scale * 2.0**-self.fraction / self.outputs",
        "else self.scale * 2.0**-self.fraction / self.outputs",
        (f"{UNITS}[101-Loss.MSE]", f"{UNITS}[101-Loss.AUTOENCODER]"),
        "the derivative of a square",
    ),
    Mutant(
        "labels-share-a-head",
        "training/losses.py",
        "SigmoidCrossEntropy(step * HEAD_ONE, bits), numbers, bits, 2.0**-bits, True)",
        "SigmoidCrossEntropy(step * HEAD_ONE, bits), numbers, 15, 2.0**-15, True)",
        tuple(f"{LOSSES}[{seed}-Loss.SIGMOID]" for seed in (100, 102, 104, 106)),
        "with more labels a gradient has fewer fraction bits",
    ),
    Mutant(
        "fan-out-not-summed",
        "training/autodiff.py",
        "        for other in others:\n",
        "        for other in others[:0]:\n",
        (f"{FINITE}[1]", f"{FINITE}[7]"),
        "only the last gradient of a value with several readers counts",
    ),
    Mutant(
        "skip-gradient-lost",
        "ops/add.py",
        "        for x, sign in zip(node.inputs, self.signs, strict=True):\n",
        "        for x, sign in zip(node.inputs[:1], self.signs, strict=False):\n",
        (f"{FINITE}[1]",),
        "the released compiler's defect: the residual's gradient is overwritten",
    ),
    Mutant(
        "chain-waits-for-itself",
        "training/autodiff.py",
        "if others and (scale != (1.0,) or self._feeds(last, others)):",
        "if others and scale != (1.0,):",
        ("tests/test_passes.py::test_gradients_that_wait_for_each_other_are_not_fused_into_one_chain",),
        "a value added to itself would need the chain's own output",
    ),
    Mutant(
        "shared-slot-names",
        "training/autodiff.py",
        "        while candidate in self.slots:\n",
        "        while False:\n",
        ("tests/test_gradients.py::test_calibrated_exponents_leave_one_bit_above_the_largest_gradient_seen",),
        "two stored gradients of one value get the exponent of the last",
    ),
    Mutant(
        "new-head-weights",
        "training/autodiff.py",
        HEAD_ORDER_OLD,
        HEAD_ORDER_NEW,
        (f"{FINITE}[2]", f"{FINITE}[4]"),
        "the features' gradient must use the head before its update",
    ),
    Mutant(
        "missing-1/P",
        "ops/pool.py",
        "Quant((quant.scale[0] / p,), exponent=quant.exponent)",
        "Quant(quant.scale, exponent=quant.exponent)",
        (f"{FINITE}[0]",),
        "the gradient of an average is the average of the gradient",
    ),
    Mutant(
        "exponent-sign",
        "ops/backprop.py",
        "return int(exponents[self.exponent]) - slot(exponents, grad_quant(node.inputs[0].type))",
        "return slot(exponents, grad_quant(node.inputs[0].type)) - int(exponents[self.exponent])",
        (f"{FINITE}[1]", f"{NUMERICS}::test_stored_gradients_are_rounded_and_their_clamped_elements_counted"),
        "a stored gradient is divided by 2**E",
    ),
    Mutant(
        "sum-at-the-wrong-exponent",
        "ops/backprop.py",
        "return (np.clip(a.astype(np.int64) + rsh(g, shift), INT32_MIN, INT32_MAX),)",
        "return (np.clip(a.astype(np.int64) + rsh(g, -shift), INT32_MIN, INT32_MAX),)",
        (f"{NUMERICS}::test_gradients_meet_at_the_exponent_of_the_sum",),
        "the skip is brought to the exponent of the sum, not away from it",
    ),
    Mutant(
        "sample-exponent-sign",
        "ops/loss.py",
        "return rsh(arrays[0], -k).reshape(self.shape), np.array([self.base - k])",
        "return rsh(arrays[0], -k).reshape(self.shape), np.array([self.base + k])",
        (f"{NUMERICS}::test_head_gradient_and_the_exponent_of_the_sample",),
        "what was multiplied by 2**k counts 2**-k",
    ),
    Mutant(
        "mask-not-strict",
        "ops/backprop.py",
        "return (y > -128) & (y < 127)",
        "return (y >= -128) & (y <= 127)",
        (f"{NUMERICS}::test_the_mask_is_strict_at_both_ends", f"{FINITE}[0]"),
        "a clamped value passes no gradient",
    ),
    Mutant(
        "mask-open-above",
        "ops/backprop.py",
        "return (y > -128) & (y < 127)",
        "return (y > -128) & (y <= 127)",
        (f"{NUMERICS}::test_the_mask_is_strict_at_both_ends",),
        "the upper end clamps as well (ReLU6)",
    ),
    Mutant(
        "depthwise-taps-flipped",
        "ops/depthwise.py",
        "h.astype(np.float64) * weight[0, ky, kx].astype(np.float64)",
        "h.astype(np.float64) * weight[0, -1 - ky, -1 - kx].astype(np.float64)",
        (f"{FINITE}[1]", f"{FINITE}[16]"),
        "the input gradient puts each tap where it read",
    ),
    Mutant(
        "stride-ignored",
        "ops/correlate.py",
        "            padded[:, rows, columns, i] +=",
        "            rows, columns = (slice(s.start, s.start + n) for s, n in ((rows, h.shape[1]), (columns, h.shape[2])))\n"
        "            padded[:, rows, columns, i] +=",
        (f"{FINITE}[2]", f"{FINITE}[14]"),
        "the input gradient of a strided convolution is spread out",
    ),
    Mutant(
        "groups-mixed",
        "ops/correlate.py",
        "grad[o, ky, kx] += flat[:, o].T @ taps[:, i]",
        "grad[o, ky, kx] += flat[:, o].T @ taps[:, :per_in]",
        (f"{FINITE}[6]", f"{FINITE}[18]"),
        "each group sees its own inputs",
    ),
    Mutant(
        "reshape-calibrated-as-int8",
        "ops/reshape.py",
        '    """A stored gradient under the shape of the value before."""\n\n    phase = "backward"\n',
        '    """A stored gradient under the shape of the value before."""\n',
        ("tests/test_gradients.py::test_integer_gradients_point_where_the_real_ones_do",),
        "calibration must not squeeze a float gradient through int8",
    ),
    Mutant(
        "no-headroom",
        "training/calibrate.py",
        "math.ceil(math.log2(top / 127)) + 1)",
        "math.ceil(math.log2(top / 127)))",
        ("tests/test_gradients.py::test_calibrated_exponents_leave_one_bit_above_the_largest_gradient_seen",),
        "exponents are static: one bit is kept for samples not seen",
    ),
    Mutant(
        "softmax-gradient-adds-the-mean",
        "ops/softmax.py",
        "p * (256 * g - (g * p)",
        "p * (256 * g + (g * p)",
        ("tests/test_gradients.py::test_real_gradients_through_a_softmax_equal_finite_differences",),
        "probabilities share what is one",
    ),
)
