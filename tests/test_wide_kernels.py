"""The host twin's vector kernels, built for this machine and for lesser ones, give the bits of the integer semantics."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import numpy as np
import pytest

import test_backward_kernels
import test_forward_kernels
from kernels import CSRC, STRICT, Case, Host, build, cases, expected, run, same
from mcugrad import toolchain
from mcugrad.build import WIDE
from mcugrad.ops.update import Update

SETS = {"forward": test_forward_kernels.CASES, "backward": test_backward_kernels.CASES}

# Flags for lesser x86 machines, each with the processor's flag that it needs; the last one uses no intrinsics at all.
LESSER = {
    "avx-vnni": ("avx_vnni", ("-march=alderlake",)),
    "avx2": ("avx2", ("-march=x86_64_v3",)),
    "sse2": ("sse2", ("-march=x86_64",)),
    "portable": ("sse2", ("-march=x86_64", "-U__SSE2__")),
}


def machines() -> dict[str, tuple[str, ...]]:
    """Flags of the machines whose code this one runs."""
    info = Path("/proc/cpuinfo")
    able = set(info.read_text().split()) if info.exists() and platform.machine() == "x86_64" else set()
    return {"native": ("-march=native",), **{name: flags for name, (needs, flags) in LESSER.items() if needs in able}}


MACHINES = machines()

PRIMITIVES = """
#include "fixed.h"
#include "wide/windows.h"

int32_t disagree(int32_t v, int32_t m, int32_t sh, int32_t zero);
int32_t disagree(int32_t v, int32_t m, int32_t sh, int32_t zero) {
  int32_t values[MCG_WIDTH], multipliers[MCG_WIDTH], wrong = 0;
  uint8_t shifts[MCG_WIDTH], near[MCG_WIDTH];
  for (int32_t i = 0; i < MCG_WIDTH; ++i) {
    values[i] = (int32_t)((uint32_t)v + (uint32_t)(i - 8)), multipliers[i] = m - i;
    shifts[i] = (uint8_t)mcg_between(sh + i % 3, 33, zero == 0 ? 62 : MCG_LONGEST), near[i] = (uint8_t)(33 + i % 8);
  }
  const mcg_wide_t x = mcg_load_wide(values), multiplier = mcg_load_wide(multipliers);
  const mcg_scale_t scale = mcg_scale_by(multiplier, mcg_unsigned(mcg_load_bytes(shifts, MCG_WIDTH)));
  const mcg_wide_t got = mcg_crossed(mcg_mbqm_crossed(x, &scale));
  for (int32_t i = 0; i < MCG_WIDTH; ++i) wrong += got[i] != mcg_mbqm(values[i], multipliers[i], shifts[i]);
  for (int32_t i = 0; i < MCG_WIDTH; ++i) shifts[i] = (uint8_t)mcg_between(shifts[i], 33, MCG_LONGEST);
  const mcg_output_scale_t scales[2] = {mcg_output_scale_of(multipliers, near, MCG_WIDTH, zero),
                                        mcg_output_scale_of(multipliers, shifts, MCG_WIDTH, zero)};
  for (int32_t last = 0; last < 2; ++last) { /* with and without long shifts */
    const mcg_wide_t four[4] = {x, x, ~x, ~x};
    const mcg_four_t bytes = mcg_requantize_four(four, &scales[0], &scales[last],
                                                 mcg_pair_words(scales[0].factor, scales[last].factor));
    for (int32_t i = 0; i < 4 * MCG_WIDTH; ++i) {
      const int32_t lane = i % MCG_WIDTH, sum = i < 2 * MCG_WIDTH ? values[lane] : ~values[lane];
      const int far = last == 1 && i / MCG_WIDTH % 2 == 1;
      wrong += bytes[i] != mcg_requantize(sum, multipliers[lane], far ? shifts[lane] : near[lane], zero);
    }
  }
  return wrong;
}

int32_t clamp(int32_t v);
int32_t clamp(int32_t v) {
  const mcg_wide_t lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, x = v + lane;
  const mcg_wide_t crossed = mcg_crossed(x), four[4] = {crossed, -crossed, crossed + 1, mcg_crossed(lane)};
  int32_t clamped = 5, want = 5, wrong = 0;
  const mcg_four_t bytes = mcg_clamp_four(four, &clamped);
  for (int32_t i = 0; i < MCG_WIDTH; ++i) {
    wrong += bytes[i] != mcg_clampg_counted(x[i], &want);
    wrong += bytes[i + MCG_WIDTH] != mcg_clampg_counted(-x[i], &want);
    wrong += bytes[i + 2 * MCG_WIDTH] != mcg_clampg_counted(x[i] + 1, &want);
    wrong += bytes[i + 3 * MCG_WIDTH] != i;
  }
  return wrong + (clamped != want);
}

int32_t dot(int32_t acc, uint32_t a, uint32_t b);
int32_t dot(int32_t acc, uint32_t a, uint32_t b) {
  mcg_bytes_t first[4], second[4];
  mcg_wide_t sum = mcg_splat(acc);
  for (int i = 0; i < 4; ++i) {
    const mcg_bytes_t zero = {0};
    first[i] = zero + (int8_t)(a >> (8 * i)), second[i] = zero + (int8_t)(b >> (8 * i));
  }
  for (int i = 0; i < 4; i += MCG_TERMS) {
    const mcg_wide_t word = mcg_word_of(second + i);
    sum = mcg_dot(sum - MCG_FLIP * mcg_dot(mcg_splat(0), mcg_splat(MCG_ONES), word), mcg_flipped(first + i), word);
  }
  return sum[15];
}
"""


@pytest.fixture(scope="module", params=list(MACHINES))
def machine(request):
    return MACHINES[request.param]


def compiler():
    return toolchain.for_this_cpu(toolchain.zig())


@pytest.fixture(scope="module")
def libraries(machine, tmp_path_factory):
    found = {"examples": [c for c in cases() if c.node.op.kernel(c.node)], **SETS}
    flags = ("-O3", *machine, *WIDE)
    return {name: (Host(build(tmp_path_factory.mktemp("wide"), some, compiler(), flags)), some) for name, some in found.items()}


@pytest.mark.parametrize("name", ["examples", *SETS])
def test_kernels_give_the_bits_of_the_integer_semantics(name, libraries):
    library, some = libraries[name]

    def wrong(case: Case) -> bool:
        contents = case.contents(2)
        return not same(run(case, library, contents, alignment=3), expected(case, contents))

    assert [case.name for case in some if wrong(case)] == []


def test_gradients_shifted_beyond_every_bit_move_nothing(libraries):
    library, some = libraries["backward"]
    for case in (c for c in some if c.op is Update):
        contents = case.contents(0)
        (control,) = (v for v in contents if v.name == "control")
        contents[control] = contents[control].copy()
        contents[control][2] = 40  # halvings of the learning rate
        assert same(run(case, library, contents), expected(case, contents)), case.name


@pytest.fixture(scope="module")
def primitives(machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("primitives")
    path = folder / "primitives.c"
    path.write_text(PRIMITIVES, encoding="utf-8")
    objects = toolchain.compile_objects(compiler(), [(path, ("-O3", "-fPIC", *machine, *STRICT, *WIDE))], (CSRC,))
    return ctypes.CDLL(str(toolchain.shared_library(compiler(), objects, (), folder, "primitives")))


def test_lanes_requantize_like_the_scalar_definition_at_the_edges(primitives):
    limit = 2**31
    values = {s * (2**e + d) for e in range(31) for d in (-1, 0, 1) for s in (-1, 1)} | {9 - limit, limit - 9}
    for sh in (33, 34, 47, 52, 60, 62):
        for m in (15, 2**30, 2**30 + 16, 2**31 - 1, 1518500250):
            for zero in (-128, 0, 127):
                assert not any(primitives.disagree(v, m, sh, zero) for v in values if 8 - limit <= v <= limit - 8), (
                    sh,
                    m,
                    zero,
                )


def test_gradients_are_clamped_and_counted_at_the_edges(primitives):
    ends = (-(2**31) + 1, -32770, -256, -128, -127, 0, 112, 127, 240, 32750, 2**31 - 18)
    assert not any(primitives.clamp(v + d) for v in ends for d in (0, 1))


def test_dot_takes_signed_bytes_without_saturating(primitives):
    ends = (0, 0x7F7F7F7F, 0x80808080, 0x807F807F, 0x01FF80FE, 0x12345678)
    for a in ends:
        for b in ends:
            x, y = (np.frombuffer(v.to_bytes(4, "little"), np.int8).astype(int) for v in (a, b))
            assert primitives.dot(-5, a, b) == x @ y - 5


def test_they_build_for_a_machine_of_another_kind():
    flags = ("-O3", "-fPIC", "-target", "aarch64-linux-musl", *STRICT, *WIDE)
    sources = [(path, flags) for path in sorted((CSRC / "wide").glob("*.c"))]
    assert len(toolchain.compile_objects(toolchain.zig(), sources, (CSRC,))) == len(sources) > 0
