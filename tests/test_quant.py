"""Calibration, post-training quantization and the repair of dead channels."""

import math

import numpy as np
import pytest

from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.ir import Builder, GraphError, TensorType, interpret, verify
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.pool import AvgPool
from mcugrad.ops.spatial import Window
from mcugrad.preprocess import Input, Preprocess, quantize
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.quant.assign import activation_quant, assign, quantize_layer
from mcugrad.quant.noise import layer_noise
from mcugrad.quant.observe import Range, image_range, observe
from mcugrad.quant.repair import repair_dead_channels
from onnx_models import Net, residual_net


def imported(tmp_path, net, output):
    return load(net.save(tmp_path / "m.onnx", output)).graph


def samples(graph, count=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=graph.inputs[0].type.shape[1:]) for _ in range(count)]


def chain(*ops, shape=(1, 4, 4, 3)):
    """A float graph of ops with one activation input each; convolutions get random 1x1 weights."""
    build, rng = Builder(), np.random.default_rng(0)
    x = build.input("input", TensorType(shape, "f32"))
    for i, op in enumerate(ops):
        params = ()
        if isinstance(op, Conv2d):
            weight = rng.normal(size=(3, 1, 1, 3)).astype(np.float32)
            params = (
                build.param(f"conv{i}_weight", TensorType(weight.shape, "f32"), weight),
                build.param(f"conv{i}_bias", TensorType((3,), "f32"), rng.normal(size=3)),
            )
        x = build.one(op, x, *params, name=f"v{i}", origin=f"m.onnx:{i}")
    return build.graph([x])


CONV = Conv2d(Window((1, 1)))


# --- observation ---


def test_ranges_are_the_extremes_over_all_samples():
    graph = chain(Clamp(0, 6))
    xs = [np.full((4, 4, 3), v) for v in (-2.0, 3.0, 9.0)]
    assert observe(graph, xs) == {"input": Range(-2, 9), "v0": Range(0, 6)}


def test_another_observer_decides_the_range():
    class Fixed:
        def update(self, array):
            assert array.shape == (1, 4, 4, 3)

        def range(self):
            return Range(-1, 1)

    assert set(observe(chain(CONV), samples(chain(CONV)), Fixed).values()) == {Range(-1, 1)}


def test_bad_calibration_data_is_named():
    graph = chain(CONV)
    with pytest.raises(McugradError, match="at least one sample, got none"):
        observe(graph, [])
    with pytest.raises(McugradError, match=r"sample 1 has shape \[4, 4\], the model reads \[4, 4, 3\]"):
        observe(graph, [np.zeros((4, 4, 3)), np.zeros((4, 4))])
    with pytest.raises(McugradError, match="sample 0: input is not finite"):
        observe(graph, [np.full((4, 4, 3), np.nan)])
    with pytest.raises(McugradError, match=r"sample 0: v0 \(m.onnx:0\) is not finite"), np.errstate(over="ignore"):
        observe(chain(CONV, CONV), [np.full((4, 4, 3), 1e308)])


def test_vectors_feed_a_perceptron():
    graph = chain(CONV, shape=(1, 1, 1, 3))
    assert observe(graph, [np.array([1.0, 2.0, 3.0])])["input"] == Range(1, 3)


def test_image_range_covers_all_channels():
    assert image_range(Preprocess(Input.FLOAT, scale=1 / 255)) == Range(0, 1)
    wide = image_range(Preprocess(Input.FLOAT, scale=1 / 255, mean=(0.5, 0.2), std=(0.5, 0.1)))
    assert (wide.low, wide.high) == (pytest.approx(-2), pytest.approx(8))


# --- quantization of values ---


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [(0, 6, 6 / 255, -128), (2, 6, 6 / 255, -128), (-5.1, -1, 5.1 / 255, 127), (-1, 1, 2 / 255, 0), (0, 0, 1 / 255, -128)],
)
def test_activation_range_always_holds_zero(low, high, scale, zero):
    quant = activation_quant(low, high)
    assert quant.scale[0] == pytest.approx(scale)
    assert quant.zero == zero


def test_pixels_of_a_plain_image_model_become_pixel_minus_128():
    preprocess = Preprocess(Input.FLOAT, scale=1 / 255)
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1)
    found = image_range(preprocess)
    quant = activation_quant(found.low, found.high)
    assert np.array_equal(preprocess.quantized(pixels, quant.scale[0], quant.zero).reshape(-1), np.arange(-128, 128))


def test_weights_are_symmetric_per_output_channel():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(5, 3, 3, 4)) * np.array([1, 10, 0.1, 3, 1]).reshape(5, 1, 1, 1), rng.normal(size=5)
    scale, q, b = quantize_layer(weight, bias, (0.02, 0.05), 0)
    assert (np.abs(q).max(axis=(1, 2, 3)) == 127).all()
    assert np.abs(q * scale.reshape(5, 1, 1, 1) - weight).max(axis=(1, 2, 3)) == pytest.approx(scale / 2, rel=0.2)
    assert (np.abs(b * 0.02 * scale - bias) <= 0.02 * scale / 2 + 1e-12).all()
    assert (q.dtype, b.dtype) == (np.int8, np.int32)


def test_channels_of_depthwise_weights_are_on_the_last_axis():
    weight = np.ones((1, 3, 3, 2)) * np.array([1.0, 50.0])
    scale, q, _ = quantize_layer(weight, np.zeros(2), (1.0, 1.0), 3)
    assert scale.tolist() == [1 / 127, 50 / 127] and (q == 127).all()


def test_dead_channels_get_the_median_scale_and_keep_their_bias():
    weight = np.ones((4, 1, 1, 2)) * np.array([1.27, 0, 1e-9, 3.81]).reshape(4, 1, 1, 1)
    scale, q, b = quantize_layer(weight, np.array([0.0, 1.0, -1.0, 0.0]), (0.1, 0.1), 0)
    assert scale == pytest.approx([0.01, 0.02, 0.02, 0.03])
    assert (q[1:3] == 0).all()
    assert b.tolist() == [0, 500, -500, 0]


def test_small_weights_everywhere_are_not_dead():
    """As of a layer that reads 16-bit audio unscaled."""
    scale, q, _ = quantize_layer(np.full((2, 1, 1, 1), 1e-6), np.zeros(2), (100.0, 0.01), 0)
    assert scale == pytest.approx(1e-6 / 127) and (q == 127).all()


def test_a_huge_bias_widens_the_scale_instead_of_being_cut():
    scale, q, b = quantize_layer(np.array([[[[1e-4]]], [[[1.0]]]]), np.array([1e5, 0]), (0.01, 1.0), 0)
    assert b[0] == pytest.approx(BIAS_LIMIT, rel=1e-6) and b[0] * scale[0] * 0.01 == pytest.approx(1e5)
    assert abs(q[0, 0, 0, 0]) <= 127 and scale[1] == pytest.approx(1 / 127)


def test_a_vanishing_multiplier_widens_the_scale():
    scale, _, _ = quantize_layer(np.array([[[[1e-5]]], [[[1.0]]]]), np.zeros(2), (1e-6, 1e3), 0)
    assert scale == pytest.approx([1e9 / 2**30] * 2)


def test_a_layer_of_zeros_only():
    scale, q, b = quantize_layer(np.zeros((2, 1, 1, 1)), np.array([1.0, -1.0]), (0.5, 0.1), 0)
    assert scale.tolist() == [1, 1] and not q.any() and b.tolist() == [2, -2]


def test_repair_of_integer_channels():
    scales = np.array([0.01, 4e-9, 0.03, 0.02])
    weight = np.full((4, 2), 5, np.int8)
    bias = np.array([7, 2**31 - 1, -3, 1], np.int64)
    kept, repaired, moved, count = repair_dead_channels(scales, weight, bias)
    assert (count, repaired.tolist()) == (1, [0.01, 0.02, 0.03, 0.02])
    assert kept.tolist() == [[5, 5], [0, 0], [5, 5], [5, 5]] and weight[1, 0] == 5
    assert moved.tolist() == [7, round((2**31 - 1) * 4e-9 / 0.02), -3, 1]


def test_repair_leaves_live_channels_alone():
    scales, weight, bias = np.array([0.1]), np.ones((1, 1), np.int8), np.ones(1, np.int64)
    assert repair_dead_channels(scales, weight, bias) == (weight, scales, bias, 0)


# --- graphs ---


def test_names_types_and_folded_clamps():
    graph = chain(CONV, Clamp(0, 6), AvgPool(Window((2, 2), (2, 2))), CONV)
    xs = samples(graph)
    ranges = observe(graph, xs)
    quantized = assign(graph, ranges)
    verify(quantized)
    assert [n.op.name for n in quantized.nodes] == ["conv2d", "avg_pool", "conv2d"]
    assert [n.outputs[0].name for n in quantized.nodes] == ["v0", "v2", "v3"]
    assert [p.value.name for p in quantized.params] == [p.value.name for p in graph.params]
    first, pool = (n.outputs[0].type for n in quantized.nodes[:2])
    assert first.quant.zero == -128 and first.quant.scale[0] == pytest.approx(ranges["v1"].high / 255)
    assert pool.quant == first.quant
    assert quantized.params[0].value.type.quant.axis == 0 and quantized.params[1].value.type.dtype == "s32"
    assert quantized.nodes[0].outputs[0].origin == "m.onnx:0"


def test_a_clamp_with_company_stays_a_node():
    build = Builder()
    x = build.input("input", TensorType((1, 4, 4, 3), "f32"))
    total = build.one(Add(), x, x, name="sum")
    clamped = build.one(Clamp(0, math.inf), total, name="clamped")
    graph = build.graph([build.one(Add(), total, clamped, name="out")])
    quantized = assign(graph, observe(graph, samples(graph)))
    assert [n.op.name for n in quantized.nodes] == ["add", "clamp", "add"]
    assert quantized.nodes[1].outputs[0].type.quant.zero == -128


def test_a_clamped_addition_absorbs_its_clamp():
    build = Builder()
    x = build.input("input", TensorType((1, 4, 4, 3), "f32"))
    graph = build.graph([build.one(Clamp(0, math.inf), build.one(Add(), x, x, name="sum"), name="clamped")])
    quantized = assign(graph, observe(graph, samples(graph)))
    assert [n.outputs[0].name for n in quantized.nodes] == ["sum"]
    assert quantized.outputs[0].type.quant.zero == -128


def test_sums_that_nearly_cancel_still_fit():
    build = Builder()
    x = build.input("input", TensorType((1, 1, 1, 2), "f32"))
    graph = build.graph([build.one(Add(), x, x, name="sum")])
    quantized = assign(graph, {"input": Range(-100, 100), "sum": Range(-0.001, 0.002)})
    assert quantized.outputs[0].type.quant.scale[0] == pytest.approx(200 / 255 / 32)


def test_missing_range_is_named():
    with pytest.raises(McugradError, match=r"no finite calibrated range for v0 \(m.onnx:0\)"):
        assign(chain(CONV), {"input": Range(0, 1)})


def test_a_layer_that_could_overflow_is_refused():
    build = Builder()
    x = build.input("input", TensorType((1, 1, 1, 40_000), "f32"))
    weight = build.param("conv0_weight", TensorType((1, 1, 1, 40_000), "f32"), np.ones((1, 1, 1, 40_000)))
    bias = build.param("conv0_bias", TensorType((1,), "f32"), np.zeros(1))
    graph = build.graph([build.one(CONV, x, weight, bias, name="conv0", origin="m.onnx:Gemm_7")])
    with pytest.raises(GraphError, match=r"m.onnx:Gemm_7: 40000 inputs per output could overflow"):
        assign(graph, {"input": Range(0, 1), "conv0": Range(0, 1)})


def pooled_net():
    net = Net((1, 3, 13, 11), seed=5)
    x = net.op("MaxPool", net.relu6(net.conv("x", 3, 12, (3, 5), strides=[2, 1], pads=[0, 1, 2, 3])), kernel_shape=[2, 2])
    x = net.op("Relu", net.conv(x, 12, 12, 3, group=3, auto_pad="SAME_UPPER", strides=[1, 2]))
    x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return net, net.op("Clip", net.conv(x, 12, 6, 1), net.const(np.float32(-1)), net.const(np.float32(1)))


def perceptron():
    net = Net((1, 2, 6, 5), seed=6)
    x = net.op("Relu", net.gemm(net.op("Flatten", "x"), 60, 24))
    return net, net.op("Relu", net.gemm(x, 24, 12))


@pytest.mark.parametrize("build", [residual_net, pooled_net, perceptron])
def test_integer_network_stays_close_to_float(tmp_path, build):
    net, output = build()
    graph = imported(tmp_path, net, output)
    quantized = assign(graph, observe(graph, samples(graph, 16)))
    verify(quantized)
    for row in layer_noise(graph, quantized, samples(graph, 8, seed=1)):
        assert row.sqnr_db > 25, row


def test_integers_and_reals_of_the_quantized_graph_agree_within_lsbs(tmp_path):
    graph = imported(tmp_path, *residual_net())
    quantized = assign(graph, observe(graph, samples(graph)))
    quant = quantized.inputs[0].type.quant
    q = quantize(samples(graph, 1)[0][None], quant.scale[0], quant.zero)
    exact, real = (interpret(quantized, {"input": q}, mode) for mode in ("eval", "real"))
    for node in quantized.nodes:
        assert np.abs(exact[node.outputs[0]] - real[node.outputs[0]]).max() <= 4


def test_a_bad_layer_is_found_in_the_noise_table(tmp_path):
    graph = imported(tmp_path, *residual_net())
    xs = samples(graph)
    ranges = observe(graph, xs)
    table = layer_noise(graph, assign(graph, ranges), xs)
    worse = layer_noise(graph, assign(graph, ranges | {"conv4_clamp": Range(0, 600)}), xs)
    drop = {a.name: a.sqnr_db - b.sqnr_db for a, b in zip(table, worse, strict=True)}
    assert drop["conv3"] == 0 and drop["conv4"] > 15, drop
    assert table[0].name == "input" and table[1].origin == "m.onnx:Conv_0"


def test_noise_free_and_silent_values():
    graph = chain(AvgPool(Window((1, 1))))
    quantized = assign(graph, {"input": Range(-128, 127)})
    (_, out) = layer_noise(graph, quantized, [np.full((4, 4, 3), 5.0)])
    assert out.sqnr_db == math.inf and out.signal == 25
