"""Each example runs as its README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcugrad.importers import load

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_pretraining_a_few_epochs_writes_a_network_that_learned_and_imports(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    model = tmp_path / "digits.onnx"
    command = [sys.executable, str(EXAMPLES / "pretrain_digits.py"), "--epochs", "6", "-o", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"original sensor ([\d.]+)%", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) > 70
    imported = load(model)
    assert imported.classifier is not None
    assert imported.classifier.bias.shape == (10,)
    assert model.stat().st_size < 100_000
