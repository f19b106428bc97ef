"""What an export wrote and how it compares with the device, for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def print_export(result: dict[str, Any], out: Console) -> None:
    """The agreement in two lines, and the file."""
    found = result["agreement"]
    if found is not None:
        out.print(
            f"{found['runtime']} against the device, {found['samples']} samples ({found['data']}): same top class "
            f"{found['top1']:.1%}, logits within 1 LSB {found['within']:.1%}, largest difference {found['largest']:.2f} LSB "
            f"(1 LSB = {found['lsb']:.3g}, 1/255 of the logits' range)",
            soft_wrap=True,
            markup=False,
        )
        if found["device_accuracy"] is not None:
            out.print(f"accuracy: device {found['device_accuracy']:.1%}, exported model {found['exported_accuracy']:.1%}")
    out.print(f"written to {result['file']} ({result['bytes']:,} bytes)", soft_wrap=True, markup=False)
