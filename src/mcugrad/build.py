"""A folder of generated C becomes firmware for a target, or a shared library for this machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcugrad import toolchain
from mcugrad.devices.elf import ElfFacts, read_elf
from mcugrad.errors import BudgetError, McugradError
from mcugrad.targets import Target, board_header, linker_script
from mcugrad.toolchain import WARNINGS, Compiler

_C99 = ("-std=c99", *WARNINGS)
_NO_DYNAMIC_STACK = ("-Wvla", "-Walloca")  # or no bound of the stack could be proven
_DEVICE = (
    "-fomit-frame-pointer",
    "-ffreestanding",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-jump-tables",  # the stack's bound is read from the code, and the end of a jump table cannot be
)
_SMALL = ("-falign-loops=1",)  # with -Os: no padding before the loops of C, the hot ones are in assembly
# The shell is small rather than fast, and its own loops must stay loops: memcpy must not call itself.
_SHELL = {"zig": ("-Os", "-fno-builtin"), "gcc": ("-Os", "-fno-builtin", "-fno-tree-loop-distribute-patterns")}
_HEADROOM = 32  # bytes of stack beyond the proven bound: the frame a fault pushes
_FIRST_STACK = 1024  # bytes; any size will do for the first link
_OVERFLOW = re.compile(r"(?:region|section)[^\n]*?'?(FLASH|SRAM)'?[^\n]*?overflow\w*(?:: | by )(\d+) bytes", re.IGNORECASE)
_CSRC = Path(__file__).parent / "csrc"
WIDE = ("-DMCG_WIDE=1", "-Wno-psabi")
"""Flags that choose the vector kernels of csrc/wide; only inlined functions take vectors, so their ABI does not matter."""


@dataclass(frozen=True)
class Firmware:
    """A linked ELF, what it was built for and the facts the linker decided."""

    elf: Path
    target: Target
    facts: ElfFacts


def build(
    folder: Path | str,
    target: Target,
    *,
    compiler: str = "zig",
    optimize: str | None = None,
    stack: int | None = None,
    flags: Sequence[str] = (),
) -> Firmware:
    """Builds `folder` (model.c, model.h, the runtime's *.c, ops/, asm/, firmware/) into `folder/build/<target>.elf`.

    `compiler` is "zig" or "gcc" (arm-none-eabi-gcc).  `optimize` is the target's by default, "-O3" with gcc.  `stack` is
    the size in bytes of the reserved stack; by default it is the worst case found in the linked code, so it cannot
    overflow.  Raises BudgetError when flash or SRAM is too small, McugradError when the code does not compile.
    """
    root = Path(folder).resolve()
    driver, core = _cross(compiler, target)
    output = root / "build" / target.name
    output.mkdir(parents=True, exist_ok=True)
    (output / "board.h").write_text(board_header(target), encoding="utf-8")
    optimize = optimize or (target.optimize if compiler == "zig" else "-O3")
    size = _SMALL if optimize == "-Os" else ()
    common = (*core, optimize, *_C99, *_NO_DYNAMIC_STACK, *_DEVICE, *size, *flags)
    shell = (*common, *_SHELL[compiler])
    sources = [(path, shell if path.parent.name == "firmware" else common) for path in _sources(root, device=True)]
    objects = toolchain.compile_objects(driver, sources, (root, root / "ops", output))
    elf = output.with_suffix(".elf")
    link = _Link(driver, core, compiler, target, objects, elf)
    facts = link(_FIRST_STACK if stack is None else stack)
    if stack is None:
        align = 16 if target.riscv else 8
        facts = link(-(-(facts.stack_bound + _HEADROOM) // align) * align)
    return Firmware(elf, target, facts)


@dataclass(frozen=True)
class _Link:
    """The last step of a build, which runs twice when the size of the stack follows from the linked code."""

    driver: Compiler
    core: tuple[str, ...]
    compiler: str
    target: Target
    objects: tuple[Path, ...]
    elf: Path

    def __call__(self, stack: int) -> ElfFacts:
        script = self.elf.with_suffix(".ld")
        script.write_text(linker_script(self.target, stack), encoding="utf-8")
        flags = [*self.core, "-T", str(script), "-Wl,--gc-sections", "-Wl,-e,Reset_Handler"]
        try:
            self._link(flags)
        except McugradError as error:
            raise self._explain(error, stack) from error
        return read_elf(self.elf)

    def _link(self, flags: list[str]) -> None:
        """Alone where possible: zig builds its library for seconds, once per target, and most cores need none of it."""
        if self.compiler == "gcc":
            toolchain.link(self.driver, self.objects, [*flags, "-nostdlib", "-lgcc"], self.elf)
            return
        try:
            toolchain.link(self.driver, self.objects, [*flags, "-nostdlib"], self.elf)
        except McugradError as error:
            if "undefined symbol: __" not in str(error):
                raise
            toolchain.link(self.driver, self.objects, flags, self.elf)

    def _explain(self, error: McugradError, stack: int) -> McugradError:
        found = _OVERFLOW.findall(str(error))
        if not found:
            return error
        region, excess = max(found, key=lambda pair: int(pair[1]))
        size = self.target.flash if region.upper() == "FLASH" else self.target.sram
        advice = "a smaller update scheme or input, or a larger part" if region.upper() == "SRAM" else "a smaller model"
        return BudgetError(
            f"firmware for {self.target.name} does not fit its {region} of {size} bytes: {excess} bytes too many "
            f"(reserved stack {stack} bytes); {advice} would make it fit"
        )


def _cross(compiler: str, target: Target) -> tuple[Compiler, tuple[str, ...]]:
    if compiler == "zig":
        return toolchain.zig(), ("-target", target.zig_target, f"-mcpu={target.zig_cpu}")
    if compiler == "gcc":
        if not target.gcc_flags:
            raise McugradError(f"arm-none-eabi-gcc does not build for {target.name}: use the compiler zig")
        return toolchain.installed("arm-none-eabi-gcc"), target.gcc_flags
    raise McugradError(f"unknown compiler {compiler!r}; known: zig, gcc")


def _sources(root: Path, *, device: bool) -> Iterator[Path]:
    """model.c, the runtime and the kernels in a stable order; assembly and the firmware shell only for the device."""
    if not (root / "model.c").is_file():
        raise McugradError(f"{root} holds no model.c; pass the folder that `compile` wrote")
    for pattern in ("*.c", "ops/*.c", *(("ops/*.S", "asm/*.S", "firmware/*.c") if device else ())):
        yield from sorted(root.glob(pattern))


def build_host(folder: Path | str, *, optimize: str = "-O3", sanitize: bool = False) -> Path:
    """Builds `folder` into a shared library for this machine and returns its path, new for every new content.

    With `sanitize` the undefined-behaviour and address sanitizers of the system's gcc watch it; the process that loads
    it needs the environment of `sanitizer_environment()`.  Raises McugradError when the code does not compile.
    """
    root = Path(folder).resolve()
    driver = toolchain.installed("gcc") if sanitize else toolchain.for_this_cpu(toolchain.zig())
    watch = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g") if sanitize else ("-march=native",)
    flags = ("-O1" if sanitize else optimize, "-fPIC", *_C99, *WIDE, *watch)
    parts = ("host", "wide") if (root / "wide.h").is_file() else ("host",)
    shim = (path for name in parts for path in sorted((_CSRC / name).glob("*.c")))
    sources = [(path, flags) for path in (*_sources(root, device=False), *shim)]
    objects = toolchain.compile_objects(driver, sources, (_CSRC / "host", root, root / "ops"))
    stem = "host-sanitized" if sanitize else "host"
    return toolchain.shared_library(driver, objects, watch if sanitize else (), root / "build", stem)


def sanitizer_environment() -> dict[str, str]:
    """Variables for a process that loads a library built with `sanitize`; errors end that process with a report."""
    command = [*toolchain.installed("gcc").command, "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"}
