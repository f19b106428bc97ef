"""Prints a Program as C99: model.h, model.c, and beside them the runtime's sources."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcugrad.emit import uses
from mcugrad.emit.call import ROUND, Call, CallPrinter, Rows, identifier
from mcugrad.emit.function import LEARNS, bases, function
from mcugrad.emit.initial import pack
from mcugrad.emit.pieces import Pieces, pieces
from mcugrad.emit.replay import forward_in_two, replaying
from mcugrad.emit.roll import loops
from mcugrad.ir import Kernel, Node, Operand, Value
from mcugrad.layout import to_bytes
from mcugrad.memory.problem import Home
from mcugrad.memory.schedule import LoadRows, Step, height
from mcugrad.ops.loss import StopIfEasy, StopIfZero
from mcugrad.program import Program

RUNTIME = Path(__file__).resolve().parent.parent / "csrc"
CTYPES = {"s8": "int8_t", "s16": "int16_t", "s32": "int32_t", "u1": "uint8_t", "s4": "uint8_t"}
_LABEL, _CONTROL = 1, 2
_WIDTH = 116
_STORED = "#define MCG_STORED_LATENTS"


def write(program: Program, folder: Path) -> None:
    """Writes the program and a copy of the runtime into `folder`, which is created when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.h").write_text(header(program), encoding="utf-8")
    (folder / "model.c").write_text(source(program), encoding="utf-8")
    for name in ("ops", "firmware"):
        shutil.copytree(RUNTIME / name, folder / name, dirs_exist_ok=True)
    for path in (*RUNTIME.glob("*.h"), *RUNTIME.glob("*.c")):
        shutil.copy(path, folder / path.name)
    if program.cut is not None and program.cut.pitch:
        api = folder / "mcugrad.h"
        api.write_text(api.read_text(encoding="utf-8").replace(f"{_STORED} 0", f"{_STORED} 1"), encoding="utf-8")
    everything = (RUNTIME / "host" / "uses.h").read_text(encoding="utf-8")
    (folder / "uses.h").write_text(uses.header(program, everything), encoding="utf-8")


def header(program: Program) -> str:
    """model.h: the sizes that the user's two blocks of SRAM must have."""
    sample = program.sample.type
    rows = height(sample)
    facts = {
        "ARENA_BYTES": program.plan.arena + program.replay_bytes,
        "STATE_BYTES": program.state.total,
        "INPUT_BYTES": sample.nbytes,
        "ROWS": rows,
        "ROW_BYTES": sample.nbytes // rows,
        "INPUT_ROWS": int(program.input_rows),
        "CLASSES": program.logits.type.elements,
        "TARGETS": program.targets,
    }
    if program.cut is not None and program.cut.pitch:
        cut = program.cut
        facts |= {"LATENT_SLOTS": cut.replay.slots or 0, "LATENT_PITCH": cut.pitch, "LATENT_ERASE": cut.replay.erase}
    lines = [f"/* {program.name}: sizes in bytes. */", "#ifndef MODEL_H", "#define MODEL_H", "", '#include "mcugrad.h"', ""]
    lines += [f"#define MODEL_{name} {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", "extern const mcg_model_t mcg_model;", "", "#endif", ""])


def source(program: Program) -> str:
    """model.c: constants, the forward pass, inference and the training step, and the model's descriptor."""
    return _Source(program).text()


class _Source:
    """Collects the constants while it prints the calls that need them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants: dict[Value, str] = {}
        self.data = {p.value: p.data for p in program.graph.params}
        self.printer = CallPrinter(self.address)
        self.functions: list[str] = []

    def text(self) -> str:
        cut = self.program.cut
        body = [self.forward() if cut is None else forward_in_two(self.program, cut, self.calls, self.draws), self.infer()]
        if self.program.trains:
            learning = ("mcg_model_train", "mcg_model_forward") if cut is None else ("mcg_model_learn", "mcg_model_rest")
            body.append(self.train(*learning))
        if cut is not None:
            body.append(replaying(self.program, cut, self.augment(), self.draws))
        constants = [self.constant(v) for v in self.constants]
        state, descriptor = self.state(), self.descriptor()
        head = f"/* {self.program.name}, printed from its program.  A is the arena, S the state; see model.h for sizes. */"
        parts = [f'{head}\n#include "kernels.h"\n#include "model.h"\n', *constants, *self.printer.definitions, *body]
        return "\n".join([*parts, *state, descriptor])

    # Places.

    def address(self, value: Value, ctype: str, const: bool) -> str:
        """C expression of the value's address as a pointer to `ctype`."""
        program, home = self.program, self.program.homes[value]
        if home is Home.CALLER:
            return "target" if value is program.graph.inputs[_LABEL] else "NULL"
        if home is Home.FLASH:
            name = self.constants.setdefault(value, identifier(value.name))
            return name if ctype == CTYPES[value.type.dtype] else f"(const {ctype} *){name}"
        base, at = ("S", program.state.offsets[value]) if home is Home.STATE else ("A", program.plan.offsets[value])
        pointer = f"({'const ' if const else ''}{ctype} *)"
        return f"{pointer}({base} + {at})"

    def constant(self, value: Value) -> str:
        """Definition of a frozen parameter."""
        raw = np.frombuffer(to_bytes(self.data[value], value.type), np.dtype(_NUMPY[CTYPES[value.type.dtype]]))
        ctype = CTYPES[value.type.dtype]
        numbers = ", ".join(map(str, raw.tolist()))
        text = "\n".join(textwrap.wrap(f"{{{numbers}}};", _WIDTH, initial_indent="    ", subsequent_indent="    "))
        note = f"/* {value.type}{' of ' + value.origin if value.origin else ''} */"
        return f"{note}\nstatic const {ctype} {self.constants[value]}[{len(raw)}] =\n{text}"

    # Functions.

    def forward(self) -> str:
        steps = self.program.schedule[: self.program.forward]
        lines = self.calls(steps)
        drawn = ", const mcg_drawn_t *drawn" if self.draws else ""
        signature = f"mcg_status_t mcg_model_forward(const mcg_context_t *c{drawn})"
        return function(signature, [*bases(lines), *lines, "return MCG_OK;"], declare=True)

    def infer(self) -> str:
        logits = self.address(self.program.logits, "int32_t", True)
        lines = [
            "uint8_t *const A = c->arena;",
            f"const int32_t *const result = {logits};",
            f"const mcg_status_t status = mcg_model_forward(c{', NULL' if self.draws else ''});",
            "if (status != MCG_OK) return status;",
            "for (int32_t i = 0; i < MODEL_CLASSES; ++i) logits[i] = result[i];",
            "return MCG_OK;",
        ]
        return function("static mcg_status_t mcg_model_infer(const mcg_context_t *c, int32_t *logits)", lines)

    def train(self, name: str, before: str) -> str:
        """The function `name`, which learns from a sample once `before` has run."""
        lines = [
            *(self.augment() if self.program.cut is None else []),
            f"const mcg_status_t status = {before}(c{', drawn' if self.draws and self.program.cut is None else ''});",
            "if (status != MCG_OK) return status;",
            *self.calls(self.program.schedule[self.program.forward :]),
            "result->progress = MCG_STEP_FULL;",
            *[f"result->saturated += *{self.address(v, 'int32_t', True)};" for v in self.program.counts],
            "return MCG_OK;",
        ]
        read = self.program.graph.inputs[_LABEL] in self.program.graph.consumers()
        unread = [] if read else ["(void)target; /* the sample is its own */"]
        return function(f"static mcg_status_t {name}({LEARNS})", [*bases(lines), *unread, *lines])

    @property
    def draws(self) -> bool:
        """Does what a step does to its sample happen while rows are pulled?"""
        return self.program.augment is not None and self.program.input_rows

    def augment(self) -> list[str]:
        """The sample as this training step sees it."""
        program = self.program
        if program.augment is None:
            return []
        _, rows, width, channels = program.sample.type.shape
        sizes = {"rows": rows, "width": width, "channels": channels, "zero": program.zero}
        fields = ", ".join(f".{name} = {int(v)}" for name, v in {**sizes, **vars(program.augment)}.items())
        self.printer.definitions.append(f"static const mcg_augment_t augment = {{{fields}}};")
        if self.draws:
            return ["mcg_drawn_t place;", "const mcg_drawn_t *const drawn = mcg_draw(&augment, c, &place);"]
        return [f"mcg_augment_image(&augment, c, {self.address(program.sample, 'int8_t', False)});"]

    def calls(self, steps: Sequence[Step | LoadRows]) -> list[str]:
        lines: list[str] = []
        index = 0
        while index < len(steps):
            number = steps[index].segment
            stop = next((i for i in range(index, len(steps)) if steps[i].segment != number), len(steps))
            part = steps[index:stop]
            lines += self.whole(part) if number is None else self.segment(part, number)
            index = stop
        return lines

    def whole(self, steps: Sequence[Step | LoadRows]) -> list[str]:
        """Nodes that run whole; what repeats, in loops."""
        nodes = [s.node for s in steps if isinstance(s, Step)]
        kernels = [n.op.kernel(n) for n in nodes]
        repeating = [k if n.op.scratch_group is not None else None for n, k in zip(nodes, kernels, strict=True)]
        lines: list[str] = []
        at = 0
        for loop in (*loops(repeating, [self.scratch(n) for n in nodes], self.place), None):
            for node, kernel in zip(nodes[at : loop.start if loop else None], kernels[at:], strict=False):
                lines += self.step(node, kernel)
            if loop is not None:
                inner = [line for n, k in zip(nodes[loop.start :], loop.kernels, strict=False) for line in self.step(n, k)]
                body = textwrap.indent("\n".join(inner), "  ")
                lines.append(f"for (int32_t {ROUND} = 0; {ROUND} < {loop.count}; ++{ROUND}) {{\n{body}\n}}")
                at = loop.stop
        return lines

    def place(self, operand: Operand) -> tuple[str, int]:
        """The block of memory that an operand lies in, and its first byte there."""
        value = operand.value
        assert value is not None, "an absent operand has no place"
        program, home = self.program, self.program.homes[value]
        if home is Home.STATE:
            return "S", program.state.offsets[value] + operand.offset
        return ("A", program.plan.offsets[value] + operand.offset) if home is Home.ARENA else (value.name, operand.offset)

    def step(self, node: Node, kernel: Kernel | None) -> list[str]:
        """One node, whole."""
        comment = _comment(node)
        if kernel is None:
            return [f"{comment}  /* same bytes */"]
        rows = Rows.whole(node) if node.op.splits_rows else None
        call = self.printer.call(node, kernel, rows, self.scratch(node))
        statement = self.statement(node, call)
        after = self.after(node)
        if call.setup:
            inner = textwrap.indent("\n".join([*call.setup, statement]), "  ")
            return [comment, f"{{\n{inner}\n}}", *after]
        return [comment, statement, *after]

    def statement(self, node: Node, call: Call) -> str:
        """The call; one that ends the step when it answers so."""
        if not isinstance(node.op, StopIfEasy | StopIfZero):
            return f"{call.expression};"
        progress = "MCG_STEP_SKIPPED" if isinstance(node.op, StopIfEasy) else "MCG_STEP_HEAD"
        return f"if ({call.expression}) {{\n  result->progress = {progress};\n  return MCG_OK;\n}}"

    def after(self, node: Node) -> list[str]:
        """What the caller learns once the loss is known."""
        if self.program.p_label not in node.outputs or self.program.p_label is None:
            return []
        logits = self.address(self.program.logits, "int32_t", True)
        return [
            f"result->p_label = *{self.address(self.program.p_label, 'int32_t', True)};",
            f"result->predicted = mcg_argmax({logits}, MODEL_CLASSES);",
            "result->saturated = 0;",
        ]

    def scratch(self, node: Node) -> str:
        at = self.program.plan.scratch.get(node)
        return "NULL" if at is None else f"A + {at}"

    def segment(self, steps: Sequence[Step | LoadRows], number: int) -> list[str]:
        """A row-streamed segment: a table of (call, number of rows) in flash, one loop, one switch."""
        cases: dict[Node | Value, int] = {}
        keys: list[Node | Value] = [s.node if isinstance(s, Step) else s.value for s in steps]
        for key in keys:
            cases.setdefault(key, len(cases))
        table = pieces([(cases[k], s.first, s.last) for k, s in zip(keys, steps, strict=True)])
        name, starts = f"segment{number}", ", ".join(map(str, table.starts))
        self.printer.definitions.append(_table(name, table))
        lines = [
            "{",
            f"  int16_t next[{len(cases)}] = {{{starts}}};",
            f"  for (int32_t i = 0; i < {len(steps)}; ++i) {{",
            f"    const int32_t call = {name}[i] & {(1 << table.bits) - 1}, first = next[call];",
            f"    const int32_t last = first + ({name}[i] >> {table.bits});",
            "    next[call] = (int16_t)last;",
            "    switch (call) {",
        ]
        for key, case in cases.items():
            lines += [f"      case {case}: {{", *("        " + line for line in self.case(key)), "        break;", "      }"]
        return [*lines, "      default: break;", "    }", "  }", "}"]

    def case(self, key: Node | Value) -> list[str]:
        """The call of one node for rows [first, last)."""
        if isinstance(key, Value):
            rows = f"{{first, last, 0, {self.ring(key)}, 0}}"
            target = self.address(key, "int8_t", False)
            load = "mcg_load_augmented(c, drawn" if self.draws else "mcg_load_rows(c"
            pull = f"if ({load}, &r, {target}, {key.type.row_bytes})) return MCG_E_ROW;"
            return [f"/* rows of {key}: {key.type} */", f"const mcg_rows_t r = {rows};", pull]
        needs = key.op.needs(key, 0, height(key.outputs[0].type))
        kept = [self.ring(key.inputs[n.index]) for n in needs]
        second = kept[1] if len(kept) > 1 else 0
        rows = f"{{first, last, {kept[0]}, {self.ring(key.outputs[0])}, {second}}}"
        kernel = key.op.kernel(key)
        assert kernel is not None, "a row-streamed node has a kernel"
        call = self.printer.call(key, kernel, "&r", self.scratch(key))
        return [_comment(key), f"const mcg_rows_t r = {rows};", *call.setup, f"{call.expression};"]

    def ring(self, value: Value) -> int:
        return self.program.plan.ring_rows.get(value, height(value.type))

    # The descriptor.

    def state(self) -> list[str]:
        """The initial state block and the table of mutable parameters."""
        program = self.program
        block = self.contents()
        values = ", ".join(map(str, block)) or "0"
        text = "\n".join(textwrap.wrap(f"{{{values}}};", _WIDTH, initial_indent="    ", subsequent_indent="    "))
        note = "/* What learning starts from, packed (see mcugrad.h); the rest of the state is zero. */"
        lines = [f"{note}\nstatic const uint8_t initial_state[{max(len(block), 1)}] =\n{text}"]
        mutable = [p.value for p in program.graph.mutable()]
        rows = [f'    {{"{v.name}", {program.state.offsets[v]}, {v.type.nbytes}}},' for v in mutable] or ["    {NULL, 0, 0},"]
        return [*lines, "\n".join([f"static const mcg_parameter_t parameters[{len(rows)}] = {{", *rows, "};"])]

    def contents(self) -> bytes:
        """The initial state block, packed."""
        return pack(self.program.initial_state())

    def descriptor(self) -> str:
        program = self.program
        at = program.plan.offsets.get(program.sample, 0)
        fields = {
            "abi": "MCG_ABI",
            "fingerprint": f"{program.fingerprint:#010x}u",
            "arena_bytes": "MODEL_ARENA_BYTES",
            "state_bytes": "MODEL_STATE_BYTES",
            "input_offset": str(at),
            "input_bytes": "MODEL_INPUT_BYTES",
            "rows": "MODEL_ROWS",
            "row_bytes": "MODEL_ROW_BYTES",
            "input_rows": "MODEL_INPUT_ROWS",
            "classes": "MODEL_CLASSES",
            "targets": "MODEL_TARGETS",
            "parameter_count": str(len(program.graph.mutable())),
            "initial_bytes": str(len(self.contents())),
            "initial_state": "initial_state",
            "parameters": "parameters",
            "infer": "mcg_model_infer",
            "train": "mcg_model_train" if program.trains else "NULL",
        }
        lines = [f"    .{name} = {value}," for name, value in fields.items()]
        return "\n".join(["const mcg_model_t mcg_model = {", *lines, "};", ""])


_NUMPY = {"int8_t": "i1", "int16_t": "<i2", "int32_t": "<i4", "uint8_t": "u1"}


def _comment(node: Node) -> str:
    outputs = ", ".join(f"{v}: {v.type}" for v in node.outputs)
    inputs = ", ".join(map(str, node.inputs))
    text = f"{outputs} = {node.op.name}({inputs})" if outputs else f"{node.op.name}({inputs})"
    lines = textwrap.wrap(text, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    return "/* " + "\n * ".join(lines) + " */"


def _table(name: str, table: Pieces) -> str:
    entries = ", ".join(map(str, table.entries))
    text = "\n".join(textwrap.wrap(f"{{{entries}}};", _WIDTH, initial_indent="    ", subsequent_indent="    "))
    note = f"/* Pieces of a segment: number of rows << {table.bits} | call. */"
    return f"{note}\nstatic const {table.ctype} {name}[{len(table.entries)}] =\n{text}"
