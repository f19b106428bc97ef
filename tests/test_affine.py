"""The fixed-point arithmetic against its definition and against vectors of an independent implementation."""

import pathlib

import numpy as np
import pytest

from mcugrad.quant import affine

VECTORS = pathlib.Path(__file__).resolve().parents[2] / "shared" / "vectors" / "primitives.npz"


@pytest.fixture(scope="module")
def vectors():
    if not VECTORS.exists():
        pytest.skip("the shared vectors are not beside the project")
    return np.load(VECTORS)


def test_multiplier_vectors(vectors):
    got = [affine.multiplier(s) for s in vectors["mult_scale"]]
    assert [g[0] for g in got] == vectors["mult_M"].tolist()
    assert [g[1] for g in got] == vectors["mult_shift"].tolist()


def test_mbqm_vectors(vectors):
    n = len(vectors["mbqm_v"])
    m, sh = vectors["mult_M"], vectors["mult_shift"]
    got = affine.mbqm(vectors["mbqm_v"], m[:n], sh[:n])
    assert np.array_equal(got, vectors["mbqm_out"])


def test_rsh_vectors(vectors):
    assert np.array_equal(affine.rsh(vectors["rsh_v"], vectors["rsh_k"]), vectors["rsh_out"])


def test_softmax_vectors(vectors):
    m, sh = int(vectors["softmax_M"]), int(vectors["softmax_shift"])
    got = np.stack([affine.softmax(a, m, sh) for a in vectors["softmax_acc"]])
    assert np.array_equal(got, vectors["softmax_p"])
    assert list(affine.SOFTMAX_LUT) == vectors["lut"].tolist()


def test_random_hash_vectors(vectors):
    got = affine.random_bits(int(vectors["hash_seed"]), int(vectors["hash_step"]), int(vectors["hash_tensor"]), np.arange(256))
    assert np.array_equal(got, vectors["hash_out"])


def test_rsh_by_hand():
    v = np.array([5, -5, 6, 7, 1, -1, 2**30, -(2**30), 3, 3])
    k = np.array([1, 1, 2, 0, 32, 40, -1, -2, -40, 31])
    expected = [3, -2, 2, 7, 0, 0, 2**31 - 1, -(2**31), 2**31 - 1, 0]
    assert affine.rsh(v, k).tolist() == expected


def test_multiplier_approximates_and_refuses():
    for s in (1e-9, 0.3, 0.9999999999, 1.0, 77.7):
        m, sh = affine.multiplier(s)
        assert 2**30 <= m < 2**31
        assert abs(m / 2**sh / s - 1) < 2**-30
    with pytest.raises(ValueError, match="outside"):
        affine.multiplier(2.0**31)


def test_softmax_sums_to_one_and_orders():
    p = affine.softmax(np.array([0, 1000, 100000, -5]), 27824, 21)
    assert abs(p.sum() - 32768) <= 4
    assert p.argmax() == 2
