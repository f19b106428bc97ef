/* residual-rows-head, printed from its program.  A is the arena, S the state; see model.h for sizes. */
#include "kernels.h"
#include "model.h"

/* s8[4,3,3,3] q(4 scales@0,0) */
static const int8_t conv0_weight[108] =
    {-110, -73, 26, -68, -100, -70, 22, -79, -118, -95, -10, -118, 91, 107, -70, 70, 17, 26, 97, -25, -85, -83, -19,
    107, 40, 35, 92, -44, -118, 125, -80, 32, -49, -68, -25, 80, -8, -34, 2, 100, 5, -28, 1, 92, -10, -50, -28, 56,
    -53, -100, -85, -8, -124, 77, 85, -100, 32, -29, -28, 35, -95, 92, 86, -113, 5, -70, -83, -34, 77, -5, -25, 17,
    121, 32, 5, 40, -118, 41, 7, 35, 125, 22, -19, 2, 85, -25, -73, -59, 17, -100, 100, 107, -79, 52, -10, -10, 52,
    -79, 107, 100, -100, 17, -59, -73, -25, 85, 2, -19};
/* s32[4] */
static const int32_t conv0_bias[4] =
    {-1983, -1945, -1845, -1683};
/* s8[6,1,1,4] q(6 scales@0,0) */
static const int8_t conv1_weight[24] =
    {-110, -72, 28, -65, -96, -65, 28, -72, -110, -86, 0, -107, 103, 120, -56, 85, 33, 43, 115, -6, -65, -62, 3,
    -125};
/* s32[6] */
static const int32_t conv1_bias[6] =
    {-1983, -1945, -1845, -1683, -1459, -1173};
/* s8[1,3,3,6] q(6 scales@3,0) */
static const int8_t conv2_weight[54] =
    {-110, -71, 30, -62, -92, -60, 34, -65, -102, -77, 10, -96, 115, -122, -42, 100, 49, 60, -122, 13, -45, -41, 25,
    -102, 88, 85, -111, 10, -62, -72, -20, 94, 15, -2, 43, -105, 64, 40, 78, -77, 85, 54, 85, -77, 78, 40, 64, -105,
    43, -2, 15, 94, -20, -72};
/* s32[6] */
static const int32_t conv2_bias[6] =
    {-1983, -1945, -1845, -1683, -1459, -1173};
/* s8[4,1,1,6] q(4 scales@0,0) */
static const int8_t conv3_weight[24] =
    {-110, -70, 32, -59, -88, -55, 40, -58, -94, -68, 20, -85, 127, -109, -28, 115, 65, 77, -104, 32, -25, -20, 47,
    -79};
/* s32[4] */
static const int32_t conv3_bias[4] =
    {-1983, -1945, -1845, -1683};
/* s8[5,1,1,4] q(5 scales@0,0) */
static const int8_t conv4_weight[20] =
    {-110, -69, 34, -56, -84, -50, 46, -51, -86, -59, 30, -74, -116, -96, -14, -125, 81, 94, -86, 51};
/* s32[5] */
static const int32_t conv4_bias[5] =
    {-1983, -1945, -1845, -1683, -1459};
/* Pieces of a segment: number of rows << 1 | call. */
static const uint8_t segment0[4] =
    {8, 5, 8, 5};
static const int32_t conv0_conv2d_multiplier[4] = {1073741824, 1073741824, 1610612736, 1073741824};
static const uint8_t conv0_conv2d_shift[4] = {40, 39, 39, 40};
static const mcg_conv2d_t conv0_conv2d = {.in_h = 8, .in_w = 8, .in_c = 3, .out_h = 4, .out_w = 4, .out_c = 4,
    .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad_top = 1, .pad_left = 1, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 3, .order = 0, .x_zero = -3, .y_zero = -128, .multiplier =
    conv0_conv2d_multiplier, .shift = conv0_conv2d_shift};
static const int32_t conv1_conv2d_multiplier[6] = {1073741824, 1073741824, 1610612736, 1073741824, 1073741824,
    1610612736};
static const uint8_t conv1_conv2d_shift[6] = {39, 38, 38, 39, 38, 38};
static const mcg_conv2d_t conv1_conv2d = {.in_h = 4, .in_w = 4, .in_c = 4, .out_h = 4, .out_w = 4, .out_c = 6,
    .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 4, .order = 0, .x_zero = -128, .y_zero = -128, .multiplier =
    conv1_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_rows_t conv1_rows = {0, 4, 4, 4, 0};
static const mcg_conv2d_t conv2_conv2d = {.in_h = 4, .in_w = 4, .in_c = 6, .out_h = 4, .out_w = 4, .out_c = 6,
    .kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .pad_top = 1, .pad_left = 1, .dilation_h = 1,
    .dilation_w = 1, .groups = 6, .x_zero = -128, .y_zero = -128, .multiplier = conv1_conv2d_multiplier,
    .shift = conv1_conv2d_shift};
static const uint8_t conv3_conv2d_shift[4] = {39, 38, 38, 39};
static const mcg_conv2d_t conv3_conv2d = {.in_h = 4, .in_w = 4, .in_c = 6, .out_h = 4, .out_w = 4, .out_c = 4,
    .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 6, .order = 0, .x_zero = -128, .y_zero = 2, .multiplier =
    conv0_conv2d_multiplier, .shift = conv3_conv2d_shift};
static const mcg_add_t add_add = {.rows = 4, .row = 16, .factor1 = 32768, .factor2 = 32768, .zero1 = 2, .zero2
    = -128, .y_zero = 1, .shift = 15};
static const mcg_rows_t add_rows = {0, 4, 4, 4, 4};
static const int32_t conv4_conv2d_multiplier[5] = {1073741824, 1073741824, 1610612736, 1073741824,
    1073741824};
static const uint8_t conv4_conv2d_shift[5] = {39, 38, 38, 39, 38};
static const mcg_conv2d_t conv4_conv2d = {.in_h = 4, .in_w = 4, .in_c = 4, .out_h = 4, .out_w = 4, .out_c = 5,
    .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 4, .order = 0, .x_zero = 1, .y_zero = -128, .multiplier =
    conv4_conv2d_multiplier, .shift = conv4_conv2d_shift};
static const mcg_conv2d_t features_conv2d = {.in_h = 4, .in_w = 4, .in_c = 5, .out_h = 1, .out_w = 1, .out_c =
    5, .kernel_h = 4, .kernel_w = 4, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h =
    1, .dilation_w = 1, .groups = 5};
static const mcg_rows_t features_rows = {0, 1, 4, 1, 0};
static const mcg_head_t logits_head = {.features = 5, .classes = 3, .zero = -128, .limit = 32767};
static const mcg_softmax_t loss_0_softmax = {.classes = 3, .multiplier = 23637, .shift = 23};
static const mcg_head_t head_next_0_head = {.features = 5, .classes = 3, .zero = -128, .limit = 32767,
    .weight_shift = 16, .bias_shift = 6};

mcg_status_t mcg_model_forward(const mcg_context_t *c);
mcg_status_t mcg_model_forward(const mcg_context_t *c) {
  uint8_t *const A = c->arena;
  uint8_t *const S = c->state;
  {
    int16_t next[2] = {0, 0};
    for (int32_t i = 0; i < 4; ++i) {
      const int32_t call = segment0[i] & 1, first = next[call];
      const int32_t last = first + (segment0[i] >> 1);
      next[call] = (int16_t)last;
      switch (call) {
        case 0: {
          /* rows of %input: s8[1,8,8,3] q(0.015625,-3) */
          const mcg_rows_t r = {first, last, 0, 5, 0};
          if (mcg_load_rows(c, &r, (int8_t *)(A + 536), 24)) return MCG_E_ROW;
          break;
        }
        case 1: {
          /* %conv0: s8[1,4,4,4] q(0.03125,-128) = conv2d(%input, %conv0_weight, %conv0_bias) */
          const mcg_rows_t r = {first, last, 5, 4, 0};
          mcg_conv2d(&conv0_conv2d, &r, (const int8_t *)(A + 536), conv0_weight, NULL, conv0_bias, (int8_t *)(A + 720), A + 0);
          break;
        }
        default: break;
      }
    }
  }
  /* %conv1: s8[1,4,4,6] q(0.03125,-128) = conv2d(%conv0, %conv1_weight, %conv1_bias) */
  mcg_conv2d(&conv1_conv2d, &conv1_rows, (const int8_t *)(A + 720), conv1_weight, NULL, conv1_bias, (int8_t *)(A + 528), A + 0);
  /* %conv2: s8[1,4,4,6] q(0.03125,-128) = depthwise_conv2d(%conv1, %conv2_weight, %conv2_bias) */
  mcg_depthwise(&conv2_conv2d, &conv1_rows, (const int8_t *)(A + 528), conv2_weight, conv2_bias, (int8_t *)(A + 624), A + 0);
  /* %conv3: s8[1,4,4,4] q(0.03125,2) = conv2d(%conv2, %conv3_weight, %conv3_bias) */
  mcg_conv2d(&conv3_conv2d, &conv1_rows, (const int8_t *)(A + 624), conv3_weight, NULL, conv3_bias, (int8_t *)(A + 156), A + 0);
  /* %add: s8[1,4,4,4] q(0.03125,1) = add(%conv3, %conv0) */
  mcg_add(&add_add, &add_rows, (const int8_t *)(A + 156), (const int8_t *)(A + 720), (int8_t *)(A + 156));
  /* %conv4: s8[1,4,4,5] q(0.03125,-128) = conv2d(%add, %conv4_weight, %conv4_bias) */
  mcg_conv2d(&conv4_conv2d, &conv1_rows, (const int8_t *)(A + 156), conv4_weight, NULL, conv4_bias, (int8_t *)(A + 0), A + 80);
  /* %features: s8[1,1,1,5] q(0.03125,-128) = avg_pool(%conv4) */
  mcg_avg_pool(&features_conv2d, &features_rows, (const int8_t *)(A + 0), (int8_t *)(A + 80));
  /* %logits: s32[3] = head(%features, %head_weight, %head_bias) */
  mcg_head(&logits_head, (const int8_t *)(A + 80), (const int16_t *)(S + 12), (const int32_t *)(S + 0), (int32_t *)(A + 0));
  return MCG_OK;
}


static mcg_status_t mcg_model_infer(const mcg_context_t *c, int32_t *logits) {
  uint8_t *const A = c->arena;
  const int32_t *const result = (const int32_t *)(A + 0);
  const mcg_status_t status = mcg_model_forward(c);
  if (status != MCG_OK) return status;
  for (int32_t i = 0; i < MODEL_CLASSES; ++i) logits[i] = result[i];
  return MCG_OK;
}


static mcg_status_t mcg_model_train(const mcg_context_t *c, const int32_t *target, mcg_result_t *result) {
  uint8_t *const A = c->arena;
  uint8_t *const S = c->state;
  const mcg_status_t status = mcg_model_forward(c);
  if (status != MCG_OK) return status;
  /* %loss.0: s32[1], %loss.1: s32[3] = softmax_cross_entropy(%logits, %label) */
  mcg_softmax_cross_entropy(&loss_0_softmax, (const int32_t *)(A + 0), target, (int32_t *)(A + 24), (int32_t *)(A + 12));
  result->p_label = *(const int32_t *)(A + 24);
  result->predicted = mcg_argmax((const int32_t *)(A + 0), MODEL_CLASSES);
  result->saturated = 0;
  /* stop_if_easy(%loss.0, %control) */
  if (mcg_stop_if_easy(c, (const int32_t *)(A + 24))) {
    result->progress = MCG_STEP_SKIPPED;
    return MCG_OK;
  }
  /* %head.next.0: s16[5,3], %head.next.1: s32[3] = head_update(%features, %loss.1, %head_weight, %head_bias,
   * %control) */
  mcg_head_update(&head_next_0_head, c, (const int8_t *)(A + 80), (const int32_t *)(A + 12), (int16_t *)(S + 12), (int32_t *)(S + 0));
  result->progress = MCG_STEP_FULL;
  return MCG_OK;
}

/* What learning starts from, packed (see mcugrad.h); the rest of the state is zero. */
static const uint8_t initial_state[1] =
    {0};
static const mcg_parameter_t parameters[2] = {
    {"head_weight", 12, 30},
    {"head_bias", 0, 12},
};
const mcg_model_t mcg_model = {
    .abi = MCG_ABI,
    .fingerprint = 0x5befb528u,
    .arena_bytes = MODEL_ARENA_BYTES,
    .state_bytes = MODEL_STATE_BYTES,
    .input_offset = 536,
    .input_bytes = MODEL_INPUT_BYTES,
    .rows = MODEL_ROWS,
    .row_bytes = MODEL_ROW_BYTES,
    .input_rows = MODEL_INPUT_ROWS,
    .classes = MODEL_CLASSES,
    .targets = MODEL_TARGETS,
    .parameter_count = 2,
    .initial_bytes = 0,
    .initial_state = initial_state,
    .parameters = parameters,
    .infer = mcg_model_infer,
    .train = mcg_model_train,
};
