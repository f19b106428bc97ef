"""The figures of others that ours stand beside: the released reference code and CMSIS-NN, counted in an emulator.

Instructions of a Cortex-M7, MCUNet-5FPS with its 49kb scheme, 128x128x3, 10 classes.
"""

MODEL, SCHEME = "mcunet-5fps", "49kb"

STEP = {"step": 106_370_000, "forward": 65_040_000, "backward + update": 41_290_000}
SRAM = 252_000  # bytes, about: arena, static data and the stack frame of the step
FLASH = {"constants": 543_000, "code": 79_000}  # bytes, about

# Instructions per multiply-accumulate by shape and part; the gradients of the reference are floating point.
TINYENGINE = {
    ("1x1 16x16 48->96", "forward"): "2.06",
    ("1x1 8x8 192->96", "forward"): "1.71",
    ("dw 3x3 16x16 96", "forward"): "6.59",
    ("dw 5x5 8x8 240", "forward"): "4.47",
    ("dw 7x7 8x8 240", "forward"): "3.53",
    ("stem 3x3/2 128x128 3->16", "forward"): "1.98",
    ("1x1 16x16 48->96", "input_gradient"): "3.6",
    ("1x1 8x8 192->96", "input_gradient"): "3.6",
    ("1x1 16x16 48->96", "weight_update"): "4.1",
    ("1x1 8x8 192->96", "weight_update"): "4.1",
    ("dw 5x5 8x8 240", "input_gradient"): "2.4-3.4",
    ("dw 3x3/2 16x16 96", "input_gradient"): "8.3-11",
}
CMSIS_NN = {
    ("1x1 16x16 48->96", "forward"): "2.24",
    ("1x1 8x8 192->96", "forward"): "1.65",
    ("dw 3x3 16x16 96", "forward"): "8.4",
    ("dw 5x5 8x8 240", "forward"): "8.42",
    ("dw 7x7 8x8 240", "forward"): "7.39",
    ("stem 3x3/2 128x128 3->16", "forward"): "4.86",
    ("fc 256->256", "forward"): "2.07",
}
