"""The builds with the least memory learn the bits of the layerwise build: hashes after 20 steps in the virtual MCU.

python benchmarks/same_bits.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import FULL, SMALL, Setting, compiled
from mcugrad.compiler import Compiled
from mcugrad.devices.base import NEVER_SKIP, Device
from mcugrad.prepare import Prepared
from mcugrad.program import Program
from mcugrad.trainer import loss_of

RESULTS = Path(__file__).with_name("same_bits.json")
SEED, STEPS = 3, 20
ROOMY = 4096  # KiB: every node runs whole


def learn(device: Device, program: Program, prepared: Prepared, steps: int = STEPS) -> tuple[list[float], str]:
    """Losses, and the hash of the parameters after that many samples, each learned in full."""
    device.set_control(seed=SEED, step=0, skip=NEVER_SKIP)
    samples = zip(prepared.x[:steps], prepared.y[:steps], strict=True)
    losses = [loss_of(device.train_step(x, int(y)).p_label) for x, y in samples]
    return losses, program.state_hash(device.read_params())


def learned(build: Compiled, kind: str, steps: int = STEPS) -> tuple[list[float], str]:
    """`learn` on a fresh device of that kind."""
    with build.device(kind) as device:
        return learn(device, build.program, build.prepared, steps)


def layerwise(setting: Setting) -> Setting:
    """The same network and scheme as they are planned with room for every value whole: rows only where they are nearly free."""
    return replace(setting, sram=ROOMY, input_mode="resident")


def measure(setting: Setting) -> dict[str, Any]:
    """Both builds; bytes of SRAM are those of the linked firmware.  Raises McugradError when it does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        lean, roomy = (compiled(s, Path(folder) / str(i)) for i, s in enumerate((setting, layerwise(setting))))
        hashes = {"layerwise, host": learned(roomy, "host")[1], "lean, host": learned(lean, "host")[1]}
        hashes["lean, virtual MCU"] = learned(lean, "vm")[1]
        sram, plain = lean.firmware.facts.sram_total, roomy.firmware.facts.sram_total
    return {"steps": STEPS, "sram": sram, "layerwise_sram": plain, "hashes": hashes, "equal": len(set(hashes.values())) == 1}


def read(path: Path = RESULTS) -> Mapping[str, Any]:
    """Results by the setting's name; none when the file is missing."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def main() -> int:
    found: dict[str, Any] = {}
    for setting in (*SMALL, *FULL):
        if setting.missing:
            print(f"skipped: {setting.name}: {setting.missing} is not there")
            continue
        found[setting.name] = measure(setting)
        print(setting.name, json.dumps(found[setting.name]), flush=True)
    RESULTS.write_text(json.dumps({**read(), **found}, indent=1) + "\n", encoding="utf-8")
    return int(not all(r["equal"] for r in found.values()))


if __name__ == "__main__":
    sys.exit(main())
