"""Prints what a model with a replay buffer adds: a forward pass in two parts, and a step that learns from past samples too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcugrad.emit.function import LEARNS, bases, function
from mcugrad.memory.schedule import LoadRows, Step
from mcugrad.program import Cut, Program

Calls = Callable[[Sequence[Step | LoadRows]], list[str]]
_STATUS = "if (status != MCG_OK) return status;"


def forward_in_two(program: Program, cut: Cut, calls: Calls, draws: bool) -> str:
    """The forward pass up to the cut, the rest of it, and both; draws: rows are pulled as a training step sees them."""
    schedule, parts = program.schedule, []
    more = {"prefix": ", const mcg_drawn_t *drawn"} if draws else {}
    for name, steps in (("prefix", schedule[: cut.steps]), ("rest", schedule[cut.steps : program.forward])):
        lines = calls(steps)
        unread = [] if any("c->" in line or "(c, " in line for line in [*bases(lines), *lines]) else ["(void)c;"]
        signature = f"mcg_status_t mcg_model_{name}(const mcg_context_t *c{more.get(name, '')})"
        parts.append(function(signature, [*bases(lines), *unread, *lines, "return MCG_OK;"], declare=True))
    given = ", drawn" if draws else ""
    both = [f"const mcg_status_t status = mcg_model_prefix(c{given});", _STATUS, "return mcg_model_rest(c);"]
    signature = f"mcg_status_t mcg_model_forward(const mcg_context_t *c{more.get('prefix', '')})"
    parts.append(function(signature, both, declare=True))
    return "".join(parts)


def replaying(program: Program, cut: Cut, augment: list[str], draws: bool) -> str:
    """A training step: the new sample, then samples drawn from the buffer, each with a step number of its own.

    augment: what makes the new sample what the step sees."""
    fields = {
        "block": program.latents_at,
        "latent": program.plan.offsets[cut.value],
        "bytes": cut.value.type.nbytes,
        "slots": cut.replay.slots,
        "classes": "MODEL_CLASSES",
    }
    values = ", ".join(f".{name} = {value}" for name, value in fields.items())
    stored = cut.pitch != 0
    lines = [
        *(["if (c->store == NULL) return MCG_E_SIZE;"] if stored else []),
        "mcg_context_t now = *c;",
        *augment,
        f"mcg_status_t status = mcg_model_prefix(c{', drawn' if draws else ''});",
        _STATUS,
        f"now.step = c->step * {cut.replay.per_step + 1}u;",
        f"{'const mcg_status_t kept = ' if stored else ''}mcg_replay_offer(&replay, c, target[0]);",
        "status = mcg_model_learn(&now, target, result);",
        f"for (int32_t i = 0; status == MCG_OK && i < {cut.replay.per_step}; ++i) {{",
        "  mcg_result_t past;",
        "  now.step += 1u;",
        "  const int32_t label = mcg_replay_load(&replay, &now);",
        *(["  if (label < 0) break;"] if stored else []),
        "  status = mcg_model_learn(&now, &label, &past);",
        "}",
        "return status == MCG_OK ? kept : status;" if stored else "return status;",
    ]
    note = f"/* {cut.replay.slots} samples as {cut.value}: {cut.value.type}, and what is drawn from them. */"
    place = "const mcg_latents_t mcg_latents = {MODEL_LATENT_SLOTS, MODEL_LATENT_PITCH, MODEL_LATENT_ERASE};\n"
    return f"\n{note}\n{place if stored else ''}static const mcg_replay_t replay = {{{values}}};\n" + function(
        f"static mcg_status_t mcg_model_train({LEARNS})", lines
    )
