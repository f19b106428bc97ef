"""What a known bug is, and the tests that several of them name."""

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
