"""Training the same network in PyTorch and on a microcontroller: peak memory of both.

PyTorch (fp32, batch 1, plain SGD, the network of benchmarks/learning_float.py) runs in a process of its own.  Two peaks are
read: the process's resident memory, all of it and what came on top of the loaded library, and the tensors alive at once, by
the storages behind every result of every operation, kernels' inner buffers not counted.  Ours is the SRAM of the linked
firmware: .data, .bss and the worst case of the stack.

python benchmarks/memory.py [--model mcunet-5fps] [--steps 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import CLASSES, MODELS, Setting, compiled, model_file
from mcugrad.errors import McugradError
from mcugrad.importers import mcunet
from mcugrad.training.scheme import read_scheme

RESULTS = Path(__file__).with_name("memory.json")
KIB = 1024
OURS = {"49kb": (96, "rows"), "full": (1024, "auto")}
"""Per scheme, the SRAM in KiB that our build may use, and how it takes the image."""


@dataclass(frozen=True)
class Peak:
    """Bytes: live tensors of PyTorch, its process, the process without the library, and our firmware's SRAM."""

    model: str
    scheme: str
    tensors: int
    process: int
    training: int
    ours: int

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Tensors, training and process against our SRAM."""
        return self.tensors / self.ours, self.training / self.ours, self.process / self.ours


def measure(model: str, scheme: str, steps: int) -> Peak:
    """Both sides under one scheme.  Raises McugradError when the model's file is not there or PyTorch fails."""
    command = [sys.executable, __file__, "--model", model, "--steps", str(steps), "--child", scheme]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise McugradError(f"PyTorch's process failed: {child.stderr[-300:]}")
    peaks = json.loads(child.stdout)
    sram, mode = OURS[scheme]
    with tempfile.TemporaryDirectory() as folder:
        ours = compiled(Setting(model, scheme, sram, mode), Path(folder) / "model").facts()["sram"]["total"]
    return Peak(model, scheme, peaks["tensors"], peaks["process"], peaks["process"] - peaks["library"], ours)


def resident_peak() -> int:
    """Most bytes of memory that this process has held; Linux's getrusage also knows the peak of the process before it."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="ascii").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def child(model: str, scheme: str, steps: int) -> dict[str, int]:
    """Trains in this process; peaks in bytes."""
    import torch

    from benchmarks.learning_float import Net, Sgd, trainable

    torch.set_num_threads(1)
    network = mcunet.read_pickle(model_file(model))
    names = [layer.name for layer in network.layers()]
    library = resident_peak()
    net = Net(network, CLASSES)
    chosen = read_scheme(scheme, model)
    ratios = dict.fromkeys(names, 1.0) if scheme == "full" else {n: u.ratio for n, u in chosen.weights.items()}
    biases = len(names) if scheme == "full" else chosen.biases
    sgd = Sgd(net, trainable(network, ratios, biases))
    tensors = [t for block in net.blocks for conv in block.convs for t in (conv.weight, conv.bias)]
    with live_tensors([*tensors, net.head_weight, net.head_bias]) as live:
        for step in range(steps):
            x = torch.randint(-128, 128, (1, 3, 128, 128)).float() * net.input_scale
            loss = torch.nn.functional.cross_entropy(net.logits(x, 0), torch.tensor([step % CLASSES]))
            sgd.step(loss, 1e-3)
            del x, loss
    return {"tensors": live.peak, "process": resident_peak(), "library": library}


def live_tensors(known: list[Any]) -> Any:
    """A dispatch mode that notes the most bytes of storages alive after any operation; `known` exist already."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: dict[Any, int] = {}
            self.peak = 0
            self.note(known)

        def note(self, values: list[Any]) -> None:
            for value in values:
                if hasattr(value, "untyped_storage"):
                    storage = value.untyped_storage()
                    self.storages[StorageWeakRef(storage)] = storage.nbytes()
            self.storages = {ref: size for ref, size in self.storages.items() if not ref.expired()}
            self.peak = max(self.peak, sum(self.storages.values()))

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            self.note(tree_leaves(made))
            return made

    return Live()


def table(peaks: list[Peak]) -> str:
    lines = ["scheme | PyTorch: live tensors | training | whole process | ours (SRAM of the ELF) | ratios"]
    for p in peaks:
        ratios = " / ".join(f"{r:,.0f}x" for r in p.ratios)
        sizes = (p.tensors, p.training, p.process, p.ours)
        lines.append(" | ".join([p.scheme, *(f"{s / KIB:,.0f} KiB" for s in sizes), ratios]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mcunet-5fps", help=f"a published network in {MODELS.name}")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--child", metavar="SCHEME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.model, options.child, options.steps)))
        return 0
    try:
        peaks = [measure(options.model, scheme, options.steps) for scheme in OURS]
    except McugradError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(peaks))
    RESULTS.write_text(json.dumps({"peaks": [asdict(p) for p in peaks]}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
