"""The printer of kernel calls: what lands in flash, what is local, and what is said once."""

from mcugrad.emit.call import CallPrinter, Rows, identifier
from mcugrad.ir import Context, Kernel, Operand, RowRange, Scratch, Struct, Table
from mcugrad.ops.add import Add
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.example import activation, single

NODE = next(iter(Conv2d.examples())).nodes[0]
X = NODE.inputs[0]


def printer():
    return CallPrinter(lambda value, ctype, const: f"({'const ' * const}{ctype} *){value.name}", "context")


def test_constant_structs_and_tables_are_flash_and_defined_once():
    p = printer()
    fields = (("n", 3), ("table", Table("int32_t", (1, 2))), ("none", 0))
    kernel = Kernel("mcg_f", (Struct("mcg_a_t", fields), Operand(None), Scratch(), Context(), 7))
    first = p.call(NODE, kernel, scratch="(void *)s")
    assert first == p.call(NODE, kernel, scratch="(void *)s")
    assert first.setup == ()
    assert first.expression == "mcg_f(&out_a, NULL, (void *)s, context, 7)"
    assert p.definitions == [
        "static const int32_t out_a_table[2] = {1, 2};",
        "static const mcg_a_t out_a = {.n = 3, .table = out_a_table, .none = 0};",
    ]


def test_structs_with_operands_are_local_and_their_constant_part_is_flash():
    p = printer()
    inner = Struct("mcg_part_t", (("k", 1),))
    outer = Struct("mcg_chain_t", (("items", (Struct("mcg_item_t", (("p", inner), ("x", Operand(X)))),)),))
    call = p.call(NODE, Kernel("mcg_f", (outer,)))
    assert p.definitions == ["static const mcg_part_t out_chain_items_0_part = {.k = 1};"]
    assert call.setup == (
        "const mcg_item_t out_chain_items[1] = {{.p = &out_chain_items_0_part, .x = (const int8_t *)x}};",
        "const mcg_chain_t out_chain = {.items = out_chain_items};",
    )
    assert call.expression == "mcg_f(&out_chain)"


def test_a_window_with_fewer_fields_is_one_before_it():
    p = printer()
    first = Struct("mcg_conv2d_t", (("in_h", 3), ("in_w", 5), ("y_zero", 7)))
    part, other = Struct("mcg_conv2d_t", (("in_h", 3), ("in_w", 5))), Struct("mcg_conv2d_t", (("in_h", 4), ("in_w", 5)))
    assert [p.call(NODE, Kernel("mcg_f", (s,))).expression for s in (first, part, other)] == [
        "mcg_f(&out_conv2d)",
        "mcg_f(&out_conv2d)",
        "mcg_f(&out_conv2d_2)",
    ]
    assert len(p.definitions) == 2


def test_rows_are_whole_unless_given():
    p, kernel = printer(), Kernel("mcg_f", (RowRange(),))
    assert p.call(NODE, kernel).expression == "mcg_f(&out_rows)"
    assert p.call(NODE, kernel, Rows(1, 2, 3, 4)).expression == "mcg_f(&out_rows_2)"
    assert p.call(NODE, kernel, "piece").expression == "mcg_f(piece)"
    assert p.definitions == [
        "static const mcg_rows_t out_rows = {0, 3, 3, 3, 0};",
        "static const mcg_rows_t out_rows_2 = {1, 2, 3, 4, 0};",
    ]


def test_whole_rows_name_both_operands_of_an_addition():
    (node,) = single(Add(activation(1, 1, 1).quant), a=activation(4, 2, 3), b=activation(4, 2, 3)).nodes
    assert Rows.whole(node) == Rows(0, 4, 4, 4, 4)


def test_names_become_identifiers():
    assert [identifier(n) for n in ("block3.conv/1", "0", "é", "a b")] == ["block3_conv_1", "n0", "node", "a_b"]
