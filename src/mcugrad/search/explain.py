"""A found scheme as a TOML file, and for each layer why it is in or out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mcugrad.search.solve import ROUGH, Choice, Limits, solve
from mcugrad.search.space import Option, Progress, Space

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def scheme_toml(choice: Choice, model: str, provenance: Sequence[str]) -> str:
    """The scheme as `--scheme FILE` reads it; provenance: lines of the comment at its top."""
    lines = [f"# {line}" for line in provenance]
    lines += [f"model = {json.dumps(model)}", f"biases = {choice.depth.biases}  # of the last layers", "centred = true"]
    if choice.options:
        lines += ["", "[weights]  # share of the input channels, those of largest magnitude; extra bits per weight"]
        lines += [
            f"{_key(o.name)} = {{ ratio = {o.ratio:g}, residual_bits = {o.bits} }}"
            for o in sorted(choice.options, key=lambda o: o.layer)
        ]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def layer_rows(choice: Choice, limits: Limits, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """For each layer in forward order: its gains as shares of the whole, what is updated of it, and why."""
    space, rows = choice.space, []
    chosen = {o.layer: o for o in choice.options}
    for layer, name in enumerate(space.names):
        progress("explaining", layer, len(space.names))
        own = [o for o in space.options if o.layer == layer]
        option = chosen.get(layer)
        rows.append(
            {
                "name": name,
                "weight_gain": max((o.gain for o in own), default=0.0) / space.total,
                "bias_gain": _bias_gain(space, layer),
                "ratio": option.ratio if option else 0.0,
                "residual_bits": option.bits if option else None,
                "bias": layer >= len(space.names) - choice.depth.biases,
                "reason": _why_in(choice, option, limits, seed) if option else _why_out(choice, layer, own, limits, seed),
            }
        )
    progress("explaining", len(space.names), len(space.names))
    return rows


def _bias_gain(space: Space, layer: int) -> float:
    """Share of the whole that the layer's bias brings."""
    n = len(space.names) - layer
    return (space.depths[n].gain - space.depths[n - 1].gain) / space.total if n < len(space.depths) else 0.0


def _why_in(choice: Choice, option: Option, limits: Limits, seed: int) -> str:
    space = choice.space
    cost = f"{option.state:,} bytes of parameters, up to {space.kept[option.layer]:,} of activations"
    text = f"in: {option.gain / space.total:.2%} of the gain for {cost} and {option.instructions:,} instructions"
    other = solve(space, limits, seed, without=[option.layer], gap=ROUGH)
    if other is None:
        return text
    instead = _listed(_added(other, choice)) or "nothing"
    return f"{text}; without it the budget would go to {instead}, and {max(choice.gain - other.gain, 0):.2%} would be lost"


def _why_out(choice: Choice, layer: int, own: Iterable[Option], limits: Limits, seed: int) -> str:
    space = choice.space
    largest = max((o.gain for o in own), default=0.0)
    if not largest:
        return "out: the loss does not depend on its weight"
    other = solve(space, limits, seed, having=[layer], gap=ROUGH)
    if other is None:
        n = len(space.names) - layer
        needed = space.depths[n] if n < len(space.depths) else space.depths[-1]
        return (
            f"out: a backward pass through the last {n} layers and its weight do not fit (arena {needed.arena:,} bytes, "
            f"parameters without it {needed.state:,} bytes, {needed.instructions:,} instructions)"
        )
    option = next(o for o in other.options if o.layer == layer)
    text = f"out: {_name(option)} would bring {option.gain / space.total:.2%} for {option.state:,} bytes of parameters"
    displaced = _listed(_added(choice, other)) or "no other weight"
    return f"{text}, but displace {displaced} and lose {max(choice.gain - other.gain, 0):.2%} in all"


def _added(new: Choice, old: Choice) -> list[str]:
    """What `new` updates and `old` does not, or less of."""
    before = {o.layer: o for o in old.options}
    found = []
    for option in new.options:
        was = before.get(option.layer)
        if was is None or was.gain < option.gain:
            found.append(_name(option) + (f" (from {_name(was)})" if was else ""))
    if new.depth.biases > old.depth.biases:
        found.append(f"the biases of {new.depth.biases} instead of {old.depth.biases} layers")
    return found


def _name(option: Option) -> str:
    return f"{option.name} {option.ratio:g} F{option.bits}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts)
