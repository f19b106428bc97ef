"""The folder of a result: nothing of the user is lost, and what is interrupted leaves nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from command_line import COMMAND, Run, made
from mcugrad.folder import MANIFEST


def test_a_folder_of_ones_own_is_replaced_and_a_foreign_one_is_not(run: Run, build: tuple[object, ...]) -> None:
    assert run(*build, "-o", "out").code == 0
    (Path("out", "build") / "left-over.so").write_bytes(b"")
    assert run(*build, "-o", "out", "--scheme", "bias").code == 0, "its own work, builds included, may go"
    (Path("out") / "main.c").write_text("int main(void);")
    answer = run(*build, "-o", "out")
    assert answer.code == 1 and "holds files that mcugrad did not make (main.c)" in answer.words
    assert Path("out", "main.c").exists() and Path("out", "model.c").exists()


@pytest.mark.parametrize("name", ["notes.txt", "report.json", MANIFEST])
def test_no_file_of_the_user_is_ever_deleted(run: Run, build: tuple[object, ...], name: str) -> None:
    Path("out", "sub").mkdir(parents=True)
    Path("out", name).write_text("{}")
    Path("out", "sub", "thesis.tex").write_text("three years")
    answer = run(*build, "-o", "out")
    assert answer.code == 1 and "did not make" in answer.words
    assert Path("out", "sub", "thesis.tex").read_text() == "three years"


def test_places_that_cannot_be_written_are_named(run: Run, build: tuple[object, ...], here: Path) -> None:
    Path("file").write_text("")
    for place, said in (
        ("file", "file exists and is not a folder"),
        ("file/below", "file/below cannot be written"),
        (".", ". is the current folder"),
        ("/proc/none/out", "/proc/none/out cannot be written"),
    ):
        answer = run(*build, "-o", place)
        assert answer.code == 1 and said in answer.words, answer.err
    assert made(Path()) == {"file"}
    assert run("demo", "-o", "file").code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(run: Run, build: tuple[object, ...]) -> None:
    Path("locked").mkdir(mode=0o500)
    answer = run(*build, "-o", "locked/out")
    assert answer.code == 1 and "locked/out cannot be written: Permission denied" in answer.words


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, train: tuple[object, ...], number: int, code: int) -> None:
    arguments = [str(a) for a in (*train, "--on", "vm", "--steps", 10_000_000, "-o", "out")]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out-*/build/host-*.so")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert made(tmp_path), "it has begun"
        time.sleep(0.5)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code and not out
    assert not made(tmp_path)


def test_a_bar_moves_on_a_terminal_and_nowhere_else(run: Run, train: tuple[object, ...], tmp_path: Path) -> None:
    assert "\x1b" not in run(*train, "--steps", 5, "-o", "quiet").err
    main, side = pty.openpty()
    arguments = [str(a) for a in (*train, "--steps", 5, "-o", "out", "--json")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=side, env=environment)
    os.close(side)
    assert process.stdout is not None
    json.loads(process.stdout.read())
    shown = b""
    try:
        while chunk := os.read(main, 1 << 16):
            shown += chunk
    except OSError:  # the other side has closed
        pass
    assert process.wait() == 0 and b"learning" in shown
