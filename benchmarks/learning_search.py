"""Searched schemes for the learning benchmark: at the SRAM that the published schemes of the same network need."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mcugrad.compiler import Budget
from mcugrad.fit import INPUT_MODES, Line
from mcugrad.memory.floor import smallest_peak
from mcugrad.memory.problem import state_layout
from mcugrad.prepare import Prepared
from mcugrad.search.importance import importance
from mcugrad.search.run import Budgeted, Fixed, head_cost, search
from mcugrad.search.solve import solve
from mcugrad.search.space import bias_depths, fisher_gains, scheme_of, space, training
from mcugrad.trainer import quiet
from mcugrad.training.scheme import RESIDUAL_BITS, Update, UpdateScheme

MODE = "rows"
FLASH = 1 << 20


def searched(prepared: Prepared, published: Mapping[str, UpdateScheme]) -> list[dict[str, Any]]:
    """For each published scheme the one found under its SRAM and instructions unlimited: a record of what and how long.

    Seconds are those of this process's processor time; what the searches share is counted in each."""
    start = time.process_time()
    ample = _job(prepared, 256 << 10)
    head, fixed = head_cost(ample)
    depths = bias_depths(prepared, ample.line.target, INPUT_MODES[MODE], quiet)
    gains = fisher_gains(importance(prepared), prepared.graph)
    where = space(prepared, gains, depths, ample.line.target, RESIDUAL_BITS)
    shared = time.process_time() - start
    found = []
    for name, scheme in published.items():
        start = time.process_time()
        sram = least_sram(prepared, scheme, fixed)
        best = search(_job(prepared, sram), where, head, fixed, solve, quiet)
        chosen = scheme_of(best.choice.depth, best.choice.options)
        found.append(
            {
                "as_large_as": name,
                "sram_allowed": sram,
                "sram": best.cost.sram,
                "biases": chosen.biases,
                "weights": {k: [u.ratio, u.residual_bits] for k, u in chosen.weights.items()},
                "seconds": round(shared + time.process_time() - start, 1),
            }
        )
    return found


def scheme_from(record: Mapping[str, Any]) -> UpdateScheme:
    """The scheme of a record of `searched`."""
    weights = {k: Update(ratio, None, bits) for k, (ratio, bits) in record["weights"].items()}
    return UpdateScheme(f"searched-{record['as_large_as']}", "", weights, record["biases"], centred=True)


def least_sram(prepared: Prepared, scheme: UpdateScheme, fixed: Fixed) -> int:
    """Bytes that a scheme's leanest plan needs, with what the firmware adds; down to whole KiB."""
    graph = training(prepared, scheme)
    least = smallest_peak(graph, input_rows=INPUT_MODES[MODE]) + state_layout(graph).total + fixed.sram
    return least // 1024 * 1024


def _job(prepared: Prepared, sram: int) -> Budgeted:
    target = Budget("cortex-m7", sram=sram, flash=FLASH).resolve()
    return Budgeted(prepared, Line(target, MODE, "zig"), None, RESIDUAL_BITS, 0)
