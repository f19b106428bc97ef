"""Known bugs: each is planted alone in a copy of the package, and the named tests must fail."""

from mutants import cores, gradients, planning, runtime, tools, updates, wide
from mutants.mutant import Mutant

__all__ = ("MUTANTS", "Mutant")

MUTANTS: tuple[Mutant, ...] = (
    *gradients.MUTANTS,
    *updates.MUTANTS,
    *planning.MUTANTS,
    *runtime.MUTANTS,
    *cores.MUTANTS,
    *wide.MUTANTS,
    *tools.MUTANTS,
)
