/* residual-sparse, printed from its program.  A is the arena, S the state; see model.h for sizes. */
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
/* s8[6,1,1,2] q(6 scales@0,0) */
static const int8_t conv1_weight_rest[12] =
    {-72, 28, -65, 28, -86, 0, 120, -56, 43, 115, -62, 3};
/* s8[1,3,3,6] q(6 scales@3,0) */
static const int8_t conv2_weight[54] =
    {-110, -71, 30, -62, -92, -60, 34, -65, -102, -77, 10, -96, 115, -122, -42, 100, 49, 60, -122, 13, -45, -41, 25,
    -102, 88, 85, -111, 10, -62, -72, -20, 94, 15, -2, 43, -105, 64, 40, 78, -77, 85, 54, 85, -77, 78, 40, 64, -105,
    43, -2, 15, 94, -20, -72};
/* s8[5,1,1,4] q(5 scales@0,0) */
static const int8_t conv4_weight[20] =
    {-110, -69, 34, -56, -84, -50, 46, -51, -86, -59, 30, -74, -116, -96, -14, -125, 81, 94, -86, 51};
/* s8[4] */
static const int8_t exponents[4] =
    {0, 0, 0, 0};
static const int32_t conv0_conv2d_multiplier[4] = {1073741824, 1073741824, 1610612736, 1073741824};
static const uint8_t conv0_conv2d_shift[4] = {40, 39, 39, 40};
static const mcg_conv2d_t conv0_conv2d = {.in_h = 8, .in_w = 8, .in_c = 3, .out_h = 4, .out_w = 4, .out_c = 4,
    .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad_top = 1, .pad_left = 1, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 3, .order = 0, .x_zero = -3, .y_zero = -128, .multiplier =
    conv0_conv2d_multiplier, .shift = conv0_conv2d_shift};
static const mcg_rows_t conv0_rows = {0, 4, 8, 4, 0};
static const uint16_t conv1_conv2d_order[4] = {0, 3, 1, 2};
static const int32_t conv1_conv2d_multiplier[6] = {1073741824, 1073741824, 1610612736, 1073741824, 1073741824,
    1610612736};
static const uint8_t conv1_conv2d_shift[6] = {39, 38, 38, 39, 38, 38};
static const mcg_conv2d_t conv1_conv2d = {.in_h = 4, .in_w = 4, .in_c = 4, .out_h = 4, .out_w = 4, .out_c = 6,
    .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 2, .order = conv1_conv2d_order, .x_zero = -128, .y_zero = -128,
    .multiplier = conv1_conv2d_multiplier, .shift = conv1_conv2d_shift};
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
static const uint16_t conv0_live_select_order[2] = {0, 3};
static const mcg_select_t conv0_live_select = {.width = 4, .in_c = 4, .out_c = 2, .order =
    conv0_live_select_order};
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
static const mcg_stage_params_t conv4_h_0_chain_stages_0_stage_params = {.acc_slot = -1, .add_slot = -1,
    .mask_bits = 1, .out_slot = 0, .channels = 5, .more = 3, .multiplier = conv4_conv2d_multiplier, .shift =
    conv4_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv4_bias_next_bias_step_rate = {.slot = 0, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv4_conv2d_multiplier, .shift = conv4_conv2d_shift};
static const mcg_stage_params_t conv3_h_0_chain_stages_0_stage_params = {.acc_slot = 0, .add_slot = -1,
    .mask_bits = 1};
static const mcg_stage_params_t conv3_h_0_chain_stages_1_stage_params = {.acc_slot = 0, .add_slot = -1,
    .mask_bits = 1, .out_slot = 1, .channels = 4, .more = -1, .multiplier = conv0_conv2d_multiplier, .shift =
    conv3_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv3_bias_next_bias_step_rate = {.slot = 1, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv3_conv2d_shift};
static const mcg_stage_params_t conv2_h_0_chain_stages_0_stage_params = {.acc_slot = 1, .add_slot = -1,
    .mask_bits = 0, .out_slot = 2, .channels = 6, .more = -1, .multiplier = conv1_conv2d_multiplier, .shift =
    conv1_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv2_bias_next_bias_step_rate = {.slot = 2, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv1_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_rate_t conv3_weight_next_0_weight_step_weight_params_rate = {.slot = 1, .most = 75, .first =
    1610612736, .second = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv3_conv2d_shift};
static const mcg_weight_params_t conv3_weight_next_0_weight_step_weight_params = {.rate =
    &conv3_weight_next_0_weight_step_weight_params_rate, .residual_bits = 8, .tensor = 6, .taps = 1, .live =
    6, .total = 6, .order = 0};
static const mcg_stage_params_t conv1_h_0_chain_stages_0_stage_params = {.acc_slot = 2, .add_slot = -1,
    .mask_bits = 1, .out_slot = 3, .channels = 6, .more = -1, .multiplier = conv1_conv2d_multiplier, .shift =
    conv1_conv2d_shift, .ratio = 1073741824};
static const mcg_conv2d_t conv1_weight_next_0_conv2d = {.in_h = 4, .in_w = 4, .in_c = 2, .out_h = 4, .out_w =
    4, .out_c = 6, .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0,
    .dilation_h = 1, .dilation_w = 1, .groups = 1, .live = 2, .order = 0, .x_zero = -128};
static const mcg_rate_t conv1_weight_next_0_weight_step_weight_params_rate = {.slot = 3, .most = 75, .first =
    1610612736, .second = 2147483647, .multiplier = conv1_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_weight_params_t conv1_weight_next_0_weight_step_weight_params = {.rate =
    &conv1_weight_next_0_weight_step_weight_params_rate, .residual_bits = 4, .tensor = 2, .taps = 1, .live =
    2, .total = 4, .order = conv0_live_select_order};
static const mcg_rate_t conv1_bias_next_bias_step_rate = {.slot = 3, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv1_conv2d_multiplier, .shift = conv1_conv2d_shift};

mcg_status_t mcg_model_forward(const mcg_context_t *c);
mcg_status_t mcg_model_forward(const mcg_context_t *c) {
  uint8_t *const A = c->arena;
  uint8_t *const S = c->state;
  /* %conv0: s8[1,4,4,4] q(0.03125,-128) = conv2d(%input, %conv0_weight, %conv0_bias) */
  mcg_conv2d(&conv0_conv2d, &conv0_rows, (const int8_t *)(A + 536), conv0_weight, NULL, conv0_bias, (int8_t *)(A + 728), A + 0);
  /* %conv1: s8[1,4,4,6] q(0.03125,-128) = conv2d(%conv0, %conv1_weight, %conv1_bias, %conv1_weight_rest) */
  mcg_conv2d(&conv1_conv2d, &conv1_rows, (const int8_t *)(A + 728), (const int8_t *)(S + 84), conv1_weight_rest, (const int32_t *)(S + 0), (int8_t *)(A + 528), A + 0);
  /* %conv1.mask: u1[1,4,4,6] = clamp_mask(%conv1) */
  mcg_clamp_mask(&conv1_rows, (const int8_t *)(A + 528), (uint8_t *)(A + 2912), 24);
  /* %conv2: s8[1,4,4,6] q(0.03125,-128) = depthwise_conv2d(%conv1, %conv2_weight, %conv2_bias) */
  mcg_depthwise(&conv2_conv2d, &conv1_rows, (const int8_t *)(A + 528), conv2_weight, (const int32_t *)(S + 24), (int8_t *)(A + 2624), A + 0);
  /* %conv3: s8[1,4,4,4] q(0.03125,2) = conv2d(%conv2, %conv3_weight, %conv3_bias) */
  mcg_conv2d(&conv3_conv2d, &conv1_rows, (const int8_t *)(A + 2624), (const int8_t *)(S + 96), NULL, (const int32_t *)(S + 48), (int8_t *)(A + 156), A + 0);
  /* %conv3.mask: u1[1,4,4,4] = clamp_mask(%conv3) */
  mcg_clamp_mask(&conv1_rows, (const int8_t *)(A + 156), (uint8_t *)(A + 400), 16);
  /* %conv0.live: s8[1,4,4,2] q(0.03125,-128) = select_channels(%conv0) */
  mcg_select_channels(&conv0_live_select, &conv1_rows, (const int8_t *)(A + 728), (int8_t *)(A + 2880));
  /* %add: s8[1,4,4,4] q(0.03125,1) = add(%conv3, %conv0) */
  mcg_add(&add_add, &add_rows, (const int8_t *)(A + 156), (const int8_t *)(A + 728), (int8_t *)(A + 156));
  /* %add.mask: u1[1,4,4,4] = clamp_mask(%add) */
  mcg_clamp_mask(&conv1_rows, (const int8_t *)(A + 156), (uint8_t *)(A + 408), 16);
  /* %conv4: s8[1,4,4,5] q(0.03125,-128) = conv2d(%add, %conv4_weight, %conv4_bias) */
  mcg_conv2d(&conv4_conv2d, &conv1_rows, (const int8_t *)(A + 156), conv4_weight, NULL, (const int32_t *)(S + 64), (int8_t *)(A + 0), A + 80);
  /* %conv4.mask: u1[1,4,4,5] = clamp_mask(%conv4) */
  mcg_clamp_mask(&conv1_rows, (const int8_t *)(A + 0), (uint8_t *)(A + 100), 20);
  /* %features: s8[1,1,1,5] q(0.03125,-128) = avg_pool(%conv4) */
  mcg_avg_pool(&features_conv2d, &features_rows, (const int8_t *)(A + 0), (int8_t *)(A + 112));
  /* %logits: s32[3] = head(%features, %head_weight, %head_bias) */
  mcg_head(&logits_head, (const int8_t *)(A + 112), (const int16_t *)(S + 132), (const int32_t *)(S + 120), (int32_t *)(A + 2924));
  return MCG_OK;
}


static mcg_status_t mcg_model_infer(const mcg_context_t *c, int32_t *logits) {
  uint8_t *const A = c->arena;
  const int32_t *const result = (const int32_t *)(A + 2924);
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
  mcg_softmax_cross_entropy(&loss_0_softmax, (const int32_t *)(A + 2924), target, (int32_t *)(A + 2936), (int32_t *)(A + 0));
  result->p_label = *(const int32_t *)(A + 2936);
  result->predicted = mcg_argmax((const int32_t *)(A + 2924), MODEL_CLASSES);
  result->saturated = 0;
  /* stop_if_easy(%loss.0, %control) */
  if (mcg_stop_if_easy(c, (const int32_t *)(A + 2936))) {
    result->progress = MCG_STEP_SKIPPED;
    return MCG_OK;
  }
  /* %features.grad: s32[5] = head_input_grad(%head_weight, %loss.1) */
  mcg_head_input_grad(5, 3, (const int16_t *)(S + 132), (const int32_t *)(A + 0), (int32_t *)(A + 80));
  /* %head.next.0: s16[5,3], %head.next.1: s32[3] = head_update(%features, %loss.1, %head_weight, %head_bias,
   * %control) */
  mcg_head_update(&head_next_0_head, c, (const int8_t *)(A + 112), (const int32_t *)(A + 0), (int16_t *)(S + 132), (int32_t *)(S + 120));
  /* stop_if_zero(%features.grad) */
  if (mcg_stop_if_zero((const int32_t *)(A + 80), 5)) {
    result->progress = MCG_STEP_HEAD;
    return MCG_OK;
  }
  /* %features.scaled.0: s32[1,1,1,5] q(1,0), %features.scaled.1: s32[1] = sample_scale(%features.grad) */
  mcg_sample_scale(5, -27, (const int32_t *)(A + 80), (int32_t *)(A + 80), (int32_t *)(A + 2940));
  /* %conv4.h.0: s8[1,4,4,5] q(5 scales@3,E0), %conv4.h.1: s32[1] = chain(%features.scaled.0, %exponents,
   * %conv4.mask) */
  {
    const mcg_stage_t conv4_h_0_chain_stages[1] = {{.p = &conv4_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 100), .out = (int8_t *)(A + 320), .clamped = (int32_t *)(A + 2944)}};
    const mcg_chain_t conv4_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv4_h_0_chain_stages};
    mcg_avg_pool_grad_s32(&features_conv2d, (const int32_t *)(A + 80), &conv4_h_0_chain, A + 0);
  }
  /* %conv4_bias.next: s32[5] = update(%conv4.h.0, %conv4_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv4_bias_next_bias_step = {.rate = &conv4_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 64), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 320), 16, 5, &conv4_bias_next_bias_step, A + 0);
  }
  /* %conv3.h.0: s8[1,4,4,4] q(4 scales@3,E1), %conv3.h.1: s32[1] = chain(%conv4.h.0, %conv4_weight, %exponents,
   * %add.mask, %conv3.mask) */
  {
    const mcg_stage_t conv3_h_0_chain_stages[2] = {{.p = &conv3_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 408), .out = NULL, .clamped = NULL}, {.p =
        &conv3_h_0_chain_stages_1_stage_params, .add = NULL, .mask = (const void *)(A + 400), .out = (int8_t *)(A
        + 2816), .clamped = (int32_t *)(A + 2948)}};
    const mcg_chain_t conv3_h_0_chain = {.exponents = exponents, .count = 2, .stages = conv3_h_0_chain_stages};
    mcg_conv2d_input_grad(&conv4_conv2d, (const int8_t *)(A + 320), conv4_weight, NULL, &conv3_h_0_chain, A + 0);
  }
  /* %conv3_bias.next: s32[4] = update(%conv3.h.0, %conv3_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv3_bias_next_bias_step = {.rate = &conv3_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 48), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 2816), 16, 4, &conv3_bias_next_bias_step, A + 0);
  }
  /* %conv2.h.0: s8[1,4,4,6] q(6 scales@3,E2), %conv2.h.1: s32[1] = chain(%conv3.h.0, %conv3_weight, %exponents,
   * %conv2) */
  {
    const mcg_stage_t conv2_h_0_chain_stages[1] = {{.p = &conv2_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 2624), .out = (int8_t *)(A + 2720), .clamped = (int32_t *)(A + 2952)}};
    const mcg_chain_t conv2_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv2_h_0_chain_stages};
    mcg_conv2d_input_grad(&conv3_conv2d, (const int8_t *)(A + 2816), (const int8_t *)(S + 96), NULL, &conv2_h_0_chain, A + 0);
  }
  /* %conv2_bias.next: s32[6] = update(%conv2.h.0, %conv2_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv2_bias_next_bias_step = {.rate = &conv2_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 24), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 2720), 16, 6, &conv2_bias_next_bias_step, A + 0);
  }
  /* %conv3_weight.next.0: s8[4,1,1,6] q(4 scales@0,0), %conv3_weight.next.1: s8[4,1,1,6] = update(%conv2,
   * %conv3.h.0, %conv3_weight, %conv3_residual, %features.scaled.1, %exponents, %control) */
  {
    const mcg_weight_step_t conv3_weight_next_0_weight_step = {.p =
        &conv3_weight_next_0_weight_step_weight_params, .weight = (int8_t *)(S + 96), .residual = (void *)(S +
        162), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .mu = NULL, .bias = NULL, .c
        = c};
    mcg_conv2d_update(&conv3_conv2d, (const int8_t *)(A + 2624), (const int8_t *)(A + 2816), NULL, 48, &conv3_weight_next_0_weight_step, A + 0);
  }
  /* %conv1.h.0: s8[1,4,4,6] q(6 scales@3,E3), %conv1.h.1: s32[1] = chain(%conv2.h.0, %conv2_weight, %exponents,
   * %conv1.mask) */
  {
    const mcg_stage_t conv1_h_0_chain_stages[1] = {{.p = &conv1_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 2912), .out = (int8_t *)(A + 2720), .clamped = (int32_t *)(A + 2624)}};
    const mcg_chain_t conv1_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv1_h_0_chain_stages};
    mcg_depthwise_input_grad(&conv2_conv2d, (const int8_t *)(A + 2720), conv2_weight, &conv1_h_0_chain, A + 0);
  }
  /* %conv1_weight.next.0: s8[6,1,1,2] q(6 scales@0,0), %conv1_weight.next.1: s4[6,1,1,2] = update(%conv0.live,
   * %conv1.h.0, %conv1_weight, %conv1_residual, %features.scaled.1, %exponents, %control) */
  {
    const mcg_weight_step_t conv1_weight_next_0_weight_step = {.p =
        &conv1_weight_next_0_weight_step_weight_params, .weight = (int8_t *)(S + 84), .residual = (void *)(S +
        186), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .mu = NULL, .bias = NULL, .c
        = c};
    mcg_conv2d_update(&conv1_weight_next_0_conv2d, (const int8_t *)(A + 2880), (const int8_t *)(A + 2720), NULL, 48, &conv1_weight_next_0_weight_step, A + 0);
  }
  /* %conv1_bias.next: s32[6] = update(%conv1.h.0, %conv1_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv1_bias_next_bias_step = {.rate = &conv1_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 0), .sample_exponent = (const int32_t *)(A + 2940), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 2720), 16, 6, &conv1_bias_next_bias_step, A + 0);
  }
  result->progress = MCG_STEP_FULL;
  result->saturated += *(const int32_t *)(A + 2944);
  result->saturated += *(const int32_t *)(A + 2948);
  result->saturated += *(const int32_t *)(A + 2952);
  result->saturated += *(const int32_t *)(A + 2624);
  return MCG_OK;
}

/* What learning starts from, packed (see mcugrad.h); the rest of the state is zero. */
static const uint8_t initial_state[82] =
    {21, 128, 65, 248, 103, 248, 203, 248, 109, 249, 77, 250, 107, 251, 65, 248, 103, 248, 203, 248, 109, 249, 77,
    250, 107, 251, 65, 248, 103, 248, 203, 248, 109, 249, 65, 248, 103, 248, 203, 248, 109, 249, 77, 250, 36, 0,
    146, 191, 160, 184, 146, 149, 103, 85, 33, 250, 191, 131, 146, 186, 32, 197, 168, 201, 40, 198, 162, 188, 20,
    171, 127, 147, 228, 115, 65, 77, 152, 32, 231, 236, 47, 177};
static const mcg_parameter_t parameters[10] = {
    {"conv1_weight", 84, 12},
    {"conv1_bias", 0, 24},
    {"conv2_bias", 24, 24},
    {"conv3_weight", 96, 24},
    {"conv3_bias", 48, 16},
    {"conv4_bias", 64, 20},
    {"head_weight", 132, 30},
    {"head_bias", 120, 12},
    {"conv3_residual", 162, 24},
    {"conv1_residual", 186, 6},
};
const mcg_model_t mcg_model = {
    .abi = MCG_ABI,
    .fingerprint = 0xa6f5be07u,
    .arena_bytes = MODEL_ARENA_BYTES,
    .state_bytes = MODEL_STATE_BYTES,
    .input_offset = 536,
    .input_bytes = MODEL_INPUT_BYTES,
    .rows = MODEL_ROWS,
    .row_bytes = MODEL_ROW_BYTES,
    .input_rows = MODEL_INPUT_ROWS,
    .classes = MODEL_CLASSES,
    .targets = MODEL_TARGETS,
    .parameter_count = 10,
    .initial_bytes = 82,
    .initial_state = initial_state,
    .parameters = parameters,
    .infer = mcg_model_infer,
    .train = mcg_model_train,
};
