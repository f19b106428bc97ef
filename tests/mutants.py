"""Known bugs: each is planted alone in a copy of the package, and the named tests must fail."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old`, found exactly once in `file` (below src/mcugrad), becomes `new`; `tests` are pytest arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str


FINITE = "tests/test_gradients.py::test_real_gradients_equal_finite_differences"
NUMERICS = "tests/test_numerics.py"
KERNELS = ("tests/test_ops.py", "-k")
BITS = "test_kernel_gives_the_bits_of_the_integer_semantics_at_every_alignment and zig and"

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
    # Backward pass
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
    # Updates
    Mutant(
        "zero-point-ignored",
        "ops/conv2d.py",
        "        x = arrays[0] - np.float64(quant.zero)\n        if self.channels",
        "        x = arrays[0] - np.float64(0)\n        if self.channels",
        (f"{FINITE}[0]",),
        "the released code's defect: dW from the raw int8 input",
    ),
    Mutant(
        "zero-point-swapped",
        "ops/depthwise.py",
        "x, h = arrays[0] - np.float64(quant.zero), arrays[1].astype(np.float64)",
        "x, h = arrays[0] + np.float64(quant.zero), arrays[1].astype(np.float64)",
        (FINITE, "-k", "4 or 16 or 28 or 40"),
        "the zero point is taken off, not added",
    ),
    Mutant(
        "qas-exponent",
        "training/autodiff.py",
        "log2_shift(self.rate * scale_of(x) / (s * s))",
        "log2_shift(self.rate * scale_of(x) / s)",
        ("tests/test_gradients.py::test_real_updates_step_down_the_gradient_at_the_rate_of_quantization_aware_scaling",),
        "quantization-aware scaling divides by the square of the weight scale",
    ),
    Mutant(
        "bias-rate",
        "training/autodiff.py",
        "log2_shift(self.rate / (scale_of(x) * s * s))",
        "log2_shift(self.rate / (scale_of(x) * s))",
        ("tests/test_gradients.py::test_real_updates_step_down_the_gradient_at_the_rate_of_quantization_aware_scaling",),
        "a bias counts in units of s_x * s_w",
    ),
    Mutant(
        "sample-exponent-ignored-by-biases",
        "ops/update.py",
        "return np.array(self.base) - e - int(e_s[0]) + Control.of(control).halvings",
        "return np.array(self.base) - e + Control.of(control).halvings",
        (f"{NUMERICS}::test_bias_step",),
        "each sample has its own scale",
    ),
    Mutant(
        "halvings-ignored",
        "ops/update.py",
        "- self.residual_bits + Control.of(control).halvings",
        "- self.residual_bits",
        (f"{NUMERICS}::test_weight_step",),
        "the learning rate decays at run time",
    ),
    Mutant(
        "residual-sign",
        "ops/update.py",
        "outs = (new, moved - (new << f)) if f else (new,)",
        "outs = (new, (new << f) - moved) if f else (new,)",
        (f"{NUMERICS}::test_weight_step",),
        "weight and residual must add up to the updated value",
    ),
    Mutant(
        "weight-wraps",
        "ops/update.py",
        "moved = np.clip((w.astype(np.int64) << f) + res - u, -(127 << f), 127 << f)",
        "moved = (w.astype(np.int64) << f) + res - u",
        (f"{NUMERICS}::test_weight_step",),
        "the released code's defect: 127 + 1 becomes -128",
    ),
    Mutant(
        "seed-ignores-step",
        "ops/update.py",
        "bits = random_bits(c.seed, c.step, self.tensor, self.index(shape))",
        "bits = random_bits(c.seed, 0, self.tensor, self.index(shape))",
        (f"{NUMERICS}::test_stochastic_rounding_is_fair_and_differs_between_steps",),
        "the same element would round the same way for ever",
    ),
    Mutant(
        "random-index-of-the-segment",
        "ops/update.py",
        "rows * (self.total or kept) + where",
        "rows * kept + where",
        (f"{NUMERICS}::test_weight_step",),
        "random numbers belong to the element of the full weight",
    ),
    Mutant(
        "centring-not-compensated",
        "ops/update.py",
        "        outs = (new, moved - (new << f)) if f else (new,)\n        return (*outs, self.centre(node, new - w, *rest))",
        "        outs = (new, moved - (new << f)) if f else (new,)\n        return (*outs, rest[1])",
        (f"{NUMERICS}::test_weight_step",),
        "a centred update keeps the mean of the output",
    ),
    Mutant(
        "head-wraps",
        "ops/head.py",
        "new = np.clip(weight - step, -limit, limit), np.clip(bias",
        "new = weight - step, np.clip(bias",
        (f"{NUMERICS}::test_head_step",),
        "head weights stop at the end of int16",
    ),
    # Fixed-point arithmetic
    Mutant(
        "shift-truncates",
        "quant/affine.py",
        "    rounded = (v + (np.int64(1) << (right - 1))) >> right\n",
        "    rounded = v >> right\n",
        ("tests/test_affine.py::test_rsh_by_hand", f"{NUMERICS}::test_bias_step"),
        "RSH rounds to nearest",
    ),
    Mutant(
        "multiplier-shift-off-by-one",
        "quant/affine.py",
        "(np.int64(1) << (sh - 1))) >> sh)",
        "(np.int64(1) << (sh - 1))) >> (sh - 1))",
        (f"{NUMERICS}::test_stored_gradients_are_rounded_and_their_clamped_elements_counted",),
        "MBQM halves once more",
    ),
    Mutant(
        "softmax-table",
        "quant/affine.py",
        "2.0 ** (-np.arange(256) / 256) * 32768",
        "2.0 ** (-np.arange(256) / 255) * 32768",
        (f"{NUMERICS}::test_softmax_and_its_gradient",),
        "an octave has 256 parts",
    ),
    # Schemes and passes
    Mutant(
        "smallest-channels",
        "training/scheme.py",
        'np.argsort(-energy, kind="stable")',
        'np.argsort(energy, kind="stable")',
        ("tests/test_scheme.py::test_a_ratio_keeps_the_channels_of_largest_norm",),
        "the largest channels learn",
    ),
    Mutant(
        "ties-to-the-higher-index",
        "training/scheme.py",
        'np.argsort(-energy, kind="stable")[:count]',
        'np.argsort(energy, kind="stable")[::-1][:count]',
        ("tests/test_scheme.py::test_largest_prefers_the_lower_index_at_equal_norm",),
        "device and host must choose the same channels",
    ),
    Mutant(
        "segments-merged-out-of-order",
        "ops/conv2d.py",
        "full[..., list(channels)] = live",
        "full[..., list(channels)[::-1]] = live",
        ("tests/test_scheme.py::test_split_segments_compute_the_same_function",),
        "a partly updated weight keeps its canonical order",
    ),
    Mutant(
        "mask-of-another-tensor",
        "passes/train.py",
        "node = replace(node, inputs=(node.inputs[0], masks[node.inputs[1]]))",
        "same = [m for m in masks.values() if m.type == masks[node.inputs[1]].type]\n"
        "            node = replace(node, inputs=(node.inputs[0], same[0]))",
        ("tests/test_passes.py::test_a_mask_is_that_of_the_activation_it_replaces",),
        "each gradient has the mask of its own clamp",
    ),
    Mutant(
        "delta-forgotten",
        "csrc/ops/summed_bias.c",
        "base[i] + delta[i]",
        "base[i] + 0 * delta[i]",
        (*KERNELS, f"{BITS} Conv2d"),
        "a layer reads its bias with what it learned",
    ),
    Mutant(
        "delta-wraps",
        "csrc/ops/backward.h",
        "bias != NULL ? MCG_BIAS_LIMIT : 32767",
        "bias != NULL ? MCG_BIAS_LIMIT : 65535",
        (*KERNELS, f"{BITS} Update"),
        "a delta stops at the end of int16",
    ),
    Mutant(
        "copy-before-the-last-reader",
        "passes/keep.py",
        "side.setdefault(forward[-1], [])",
        "side.setdefault(forward[0], [])",
        ("tests/test_passes.py::test_the_copy_of_channels_is_taken_after_the_last_forward_reader",),
        "an activation and the copy of its channels are not alive together",
    ),
    Mutant(
        "overlap-forgets-the-row-it-reads",
        "memory/overlap.py",
        "free = low if walk is None else unread",
        "free = unread",
        ("tests/test_memory_overlap.py",),
        "a row may not be written over the row that its step still reads",
    ),
    Mutant(
        "gaps-forget-what-ends-now",
        "memory/gaps.py",
        "if b.first <= buffer.first <= b.last",
        "if b.first <= buffer.first < b.last",
        ("tests/test_memory.py::test_an_update_takes_the_arenas_free_bytes_while_it_runs",),
        "scratch memory grows into what nobody has, not into the operands of its own step",
    ),
    Mutant(
        "turned-forgets-the-moved-biases",
        "ops/turned.py",
        "moved = 4 * self.centred if self.kept > self.inputs else 0",
        "moved = 0",
        (*KERNELS, f"{BITS} Update"),
        "a bias that moves over several rounds is summed up in the scratch memory",
    ),
    Mutant(
        "unseen-output-goes-on-from-its-mark",
        "csrc/ops/backward.h",
        "bias == MCG_UNSEEN && step != 0 ? 0 : bias",
        "bias",
        (*KERNELS, f"{BITS} HeadUpdate"),
        "an output that waited starts from zero with its first sample",
    ),
    Mutant(
        "unseen-output-is-the-largest",
        "csrc/ops/loss.c",
        "logits[k] > max && logits[k] != MCG_UNSEEN ? logits[k] : max",
        "logits[k] > max || logits[k] == MCG_UNSEEN ? logits[k] : max",
        ("tests/test_masked.py",),
        "outputs that wait have no share in the softmax",
    ),
    Mutant(
        "walk-forgets-the-last-strip",
        "ops/spatial.py",
        "np.minimum(pixel, max(len(pixel) - strip, 0)), pixel",
        "pixel, pixel",
        ("tests/test_ops.py", "-k", "over_its_own_input_gives_the_same_bits and zig"),
        "the last strip of a convolution begins again where pixels are lacking",
    ),
    Mutant(
        "update-before-the-last-reader",
        "passes/train.py",
        "set(node.inputs) or replaced & set(other.inputs):",
        "set(node.inputs):",
        ("tests/test_passes.py::test_every_pass_keeps_every_bit_of_the_step[1]",),
        "input gradients read the old weight",
    ),
    Mutant(
        "update-before-the-end-of-the-step",
        "passes/train.py",
        "if ends_step or set(other.outputs)",
        "if set(other.outputs)",
        ("tests/test_passes.py::test_an_easy_sample_changes_nothing",),
        "a skipped sample changes nothing",
    ),
    Mutant(
        "nothing-pruned",
        "passes/train.py",
        "if not node.outputs or any(v in live for v in node.outputs):",
        "if True:",
        ("tests/test_passes.py::test_prune_drops_what_no_update_needs",),
        "gradients that lead to no update cost time and memory",
    ),
    Mutant(
        "late-read-not-refused",
        "ir.py",
        "        if late:\n",
        "        if False:\n",
        ("tests/test_ir.py::test_verify_refuses_a_read_of_the_old_value_after_its_update",),
        "an update in place destroys the old value",
    ),
    # Importer
    Mutant(
        "any-numpy-function",
        "importers/mcunet.py",
        "if (module, name) not in ALLOWED:",
        "if module not in {m for m, _ in ALLOWED}:",
        ("tests/test_mcunet_import.py::test_a_hostile_pickle_is_refused_and_runs_nothing",),
        "numpy.load reads any file",
    ),
    Mutant(
        "dead-bias-not-rescaled",
        "quant/repair.py",
        "np.rint(bias * scales / repaired)",
        "np.rint(bias)",
        ("tests/test_mcunet_import.py::test_dead_channels_become_sane_and_the_function_stays",),
        "a repaired channel is the same function",
    ),
    # Memory
    Mutant(
        "lifetime-too-short",
        "memory/problem.py",
        "lives[value] = (lives.get(value, (index, index))[0], index)",
        "lives[value] = (first := lives.get(value, (index, index))[0], max(first, index - 1))",
        ("tests/test_random_plans.py",),
        "an operand lives until the step that reads it last",
    ),
    Mutant(
        "in-place-too-early",
        "memory/problem.py",
        "if groups.last(x) == index and all(",
        "if all(",
        ("tests/test_random_plans.py",),
        "an input that is read later cannot be overwritten",
    ),
    # C runtime
    Mutant(
        "c-shift-truncates",
        "csrc/fixed.h",
        "  return (v >> k) + ((v >> (k - 1)) & 1);\n",
        "  return v >> k;\n",
        (*KERNELS, f"{BITS} Update"),
        "the device rounds as the interpreter does",
    ),
    Mutant(
        "window-begins-a-row-late",
        "passes/recompute.py",
        "min(lowest.get(value, first), first)",
        "min(lowest.get(value, first) + 1, first)",
        ("tests/test_recompute.py",),
        "a window keeps every row that is still read",
    ),
    Mutant(
        "no-row-left-for-the-last-round",
        "passes/recompute.py",
        "want[node] < self.height[node] - 1:",
        "want[node] < self.height[node]:",
        ("tests/test_recompute.py",),
        "a parameter moves after the last reader of its old value",
    ),
    Mutant(
        "c-partial-sum-starts-over",
        "csrc/ops/weight_step.c",
        "s->add && i < n",
        "0 && i < n",
        (*KERNELS, f"{BITS} Accumulate"),
        "the parts of a gradient add up",
    ),
    Mutant(
        "c-counts-start-over",
        "csrc/ops/chain.c",
        " && !chain->more",
        "",
        (*KERNELS, f"{BITS} Piece"),
        "clamped elements are counted over all pieces",
    ),
    Mutant(
        "c-mask-open-above",
        "csrc/ops/clamp_mask.c",
        "y > -128 && y < 127",
        "y > -128 && y <= 127",
        (*KERNELS, f"{BITS} ClampMask"),
        "one definition of the mask",
    ),
    Mutant(
        "wide-product-without-zero-point",
        "csrc/wide/conv2d.c",
        "- sum * (MCG_FLIP + p->x_zero)",
        "- sum * MCG_FLIP",
        ("tests/test_ops.py", "-k", f"{BITS} Conv2d".replace("zig", "wide")),
        "the host's dot product takes the zero point off x",
    ),
    Mutant(
        "wide-mask-open-above",
        "csrc/wide/pointwise.c",
        "next > -127",
        "next > -128",
        ("tests/test_ops.py", "-k", f"{BITS} ClampMask".replace("zig", "wide")),
        "one definition of the mask, for the host's vectors too",
    ),
    Mutant(
        "wide-weight-truncates",
        "csrc/wide/weight_step.c",
        "(moved + (1 << bits >> 1)) >> bits",
        "moved >> bits",
        ("tests/test_ops.py", "-k", f"{BITS} Update".replace("zig", "wide")),
        "the int8 weight is the nearest one, for the host's vectors too",
    ),
    Mutant(
        "c-sum-at-the-wrong-exponent",
        "csrc/ops/chain.c",
        "add_block(b, j, n, s, e - mcg_exponent(",
        "add_block(b, j, n, s, e + mcg_exponent(",
        (*KERNELS, f"{BITS} Chain"),
        "the skip is brought to the exponent of the sum on the device too",
    ),
    Mutant(
        "c-seed-ignores-step",
        "csrc/fixed.h",
        "seed ^ step * 0x9E3779B1u ^ tensor",
        "seed ^ tensor",
        (*KERNELS, f"{BITS} Update"),
        "random numbers are the interpreter's",
    ),
    Mutant(
        "c-table-by-sign",
        "csrc/ops/lut.c",
        "to[j] = table[(uint8_t)from[j]]",
        "to[j] = table[from[j] & 127]",
        (*KERNELS, f"{BITS} Lut"),
        "the table is indexed by the byte",
    ),
    Mutant(
        "c-nibbles-unsigned",
        "csrc/ops/weight_step.c",
        "  return (v ^ 8) - 8;\n",
        "  return v;\n",
        (*KERNELS, f"{BITS} Update"),
        "four residual bits are signed",
    ),
    Mutant(
        "softmax-gradient-adds-the-mean",
        "ops/softmax.py",
        "p * (256 * g - (g * p)",
        "p * (256 * g + (g * p)",
        ("tests/test_gradients.py::test_real_gradients_through_a_softmax_equal_finite_differences",),
        "probabilities share what is one",
    ),
    Mutant(
        "exact-export-rounds-down",
        "exporters/onnx_exact.py",
        "halves = np.asarray(divisor, np.int64) // 2",
        "halves = np.asarray(divisor, np.int64) // 4",
        ("tests/test_export.py", "-k", "exact_form"),
        "the exact form has the device's rounding",
    ),
    Mutant(
        "chunk-of-the-first-weight-rows",
        "passes/chunk_forward.py",
        "self._node(Take(first, last), depthwise.inputs[1:2]",
        "self._node(Take(0, last - first), depthwise.inputs[1:2]",
        ("tests/test_chunk_forward.py", "-k", "no_bit"),
        "a chunk of a bottleneck is filtered by its own channels' weights",
    ),
    Mutant(
        "chunk-beside-another-reader",
        "passes/chunk_forward.py",
        "len(found) == 1 and value",
        "found and value",
        ("tests/test_chunk_forward.py", "-k", "what_else_reads"),
        "a value that others read is not taken apart",
    ),
    Mutant(
        "c-sum-of-chunks-starts-over",
        "csrc/ops/conv2d_sum.c",
        "p->more && j < count",
        "p->more && j < count - 1",
        (*KERNELS, f"{BITS} Conv2dSum"),
        "the sum of a projection goes on from the chunks before",
    ),
    Mutant(
        "uses-forgets-odd-channels",
        "emit/uses.py",
        'and not (_has_spans(window) and window["in_c"] % _LANES == 0)',
        "and not _has_spans(window)",
        ("tests/test_uses.py",),
        "a device keeps every part of a kernel that some call takes",
    ),
    Mutant(
        "thresholds-need-not-be-exact",
        "ops/rate.py",
        "if exact and abs(most) < 1 << 15",
        "if abs(most) < 1 << 15",
        ("tests/test_rate.py",),
        "shifts are made of multipliers only where these tell all of them",
    ),
    Mutant(
        "c-shift-of-one-threshold",
        "csrc/ops/backward.h",
        " + ((m - r->second) >> 31);",
        ";",
        (*KERNELS, f"{BITS} Update"),
        "the device makes the shifts that the interpreter has",
    ),
    Mutant(
        "piece-without-room-for-its-call",
        "emit/pieces.py",
        "max(len(starts) - 1, 0).bit_length()",
        "max(len(starts) - 2, 0).bit_length()",
        ("tests/test_pieces.py",),
        "an entry of a segment's table keeps call and rows apart",
    ),
)
