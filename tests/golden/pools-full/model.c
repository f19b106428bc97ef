/* pools-full, printed from its program.  A is the arena, S the state; see model.h for sizes. */
#include "kernels.h"
#include "model.h"

/* s8[5] */
static const int8_t exponents[5] =
    {0, 0, 0, 0, 0};
/* s16[4] */
static const int16_t conv2_mean[4] =
    {0, 0, 0, 0};
/* s16[4] */
static const int16_t conv1_mean[4] =
    {0, 0, 0, 0};
/* s16[2] */
static const int16_t conv0_mean[2] =
    {0, 0};
static const int32_t conv0_conv2d_multiplier[4] = {1073741824, 1073741824, 1610612736, 1073741824};
static const uint8_t conv0_conv2d_shift[4] = {40, 39, 39, 40};
static const mcg_conv2d_t conv0_conv2d = {.in_h = 9, .in_w = 8, .in_c = 2, .out_h = 9, .out_w = 8, .out_c = 4,
    .kernel_h = 3, .kernel_w = 3, .stride_h = 1, .stride_w = 1, .pad_top = 1, .pad_left = 1, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 2, .order = 0, .x_zero = -3, .y_zero = 5, .multiplier =
    conv0_conv2d_multiplier, .shift = conv0_conv2d_shift};
static const mcg_rows_t conv0_rows = {0, 9, 9, 9, 0};
static const mcg_conv2d_t max_pool_conv2d = {.in_h = 9, .in_w = 8, .in_c = 4, .out_h = 8, .out_w = 7, .out_c =
    4, .kernel_h = 2, .kernel_w = 2, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h =
    1, .dilation_w = 1, .groups = 4};
static const mcg_rows_t max_pool_rows = {0, 8, 9, 8, 0};
static const mcg_clamp_t clamp_clamp = {.rows = 8, .row = 28, .multiplier = 1073741824, .shift = 30, .x_zero =
    5, .y_zero = -128};
static const mcg_rows_t clamp_rows = {0, 8, 8, 8, 0};
static const uint8_t conv1_conv2d_shift[4] = {39, 38, 38, 39};
static const mcg_conv2d_t conv1_conv2d = {.in_h = 8, .in_w = 7, .in_c = 4, .out_h = 4, .out_w = 4, .out_c = 4,
    .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad_top = 1, .pad_left = 1, .dilation_h = 1,
    .dilation_w = 1, .groups = 4, .x_zero = -128, .y_zero = -128, .multiplier = conv0_conv2d_multiplier,
    .shift = conv1_conv2d_shift};
static const mcg_rows_t conv1_rows = {0, 4, 8, 4, 0};
static const mcg_rows_t conv1_mask_rows = {0, 4, 4, 4, 0};
static const mcg_conv2d_t avg_pool_conv2d = {.in_h = 4, .in_w = 4, .in_c = 4, .out_h = 2, .out_w = 2, .out_c =
    4, .kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2, .pad_top = 0, .pad_left = 0, .dilation_h =
    1, .dilation_w = 1, .groups = 4};
static const mcg_rows_t avg_pool_rows = {0, 2, 4, 2, 0};
static const mcg_conv2d_t conv2_conv2d = {.in_h = 2, .in_w = 2, .in_c = 4, .out_h = 2, .out_w = 2, .out_c = 4,
    .kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h = 1,
    .dilation_w = 1, .groups = 1, .live = 4, .order = 0, .x_zero = -128, .y_zero = -128, .multiplier =
    conv0_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_rows_t conv2_rows = {0, 2, 2, 2, 0};
static const mcg_conv2d_t features_conv2d = {.in_h = 2, .in_w = 2, .in_c = 4, .out_h = 1, .out_w = 1, .out_c =
    4, .kernel_h = 2, .kernel_w = 2, .stride_h = 1, .stride_w = 1, .pad_top = 0, .pad_left = 0, .dilation_h =
    1, .dilation_w = 1, .groups = 4};
static const mcg_rows_t features_rows = {0, 1, 2, 1, 0};
static const mcg_head_t logits_head = {.features = 4, .classes = 3, .zero = -128, .limit = 32767};
static const mcg_softmax_t loss_0_softmax = {.classes = 3, .multiplier = 23637, .shift = 23};
static const mcg_head_t head_next_0_head = {.features = 4, .classes = 3, .zero = -128, .limit = 32767,
    .weight_shift = 16, .bias_shift = 6};
static const mcg_stage_params_t conv2_h_0_chain_stages_0_stage_params = {.acc_slot = -1, .add_slot = -1,
    .mask_bits = 1, .out_slot = 0, .channels = 4, .more = 1, .multiplier = conv0_conv2d_multiplier, .shift =
    conv1_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv2_bias_next_bias_step_rate = {.slot = 0, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_stage_params_t avg_pool_grad_0_chain_stages_0_stage_params = {.acc_slot = 0, .add_slot = -1,
    .mask_bits = 0, .out_slot = 1, .channels = 1};
static const mcg_rate_t conv2_weight_next_0_weight_step_weight_params_rate = {.slot = 0, .most = 75, .first =
    1610612736, .second = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_weight_params_t conv2_weight_next_0_weight_step_weight_params = {.rate =
    &conv2_weight_next_0_weight_step_weight_params_rate, .residual_bits = 0, .tensor = 4, .taps = 1, .live =
    4, .total = 4, .order = 0};
static const mcg_stage_params_t conv1_h_0_chain_stages_0_stage_params = {.acc_slot = 1, .add_slot = -1,
    .mask_bits = 1, .out_slot = 2, .channels = 4, .more = 1, .multiplier = conv0_conv2d_multiplier, .shift =
    conv1_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv1_bias_next_bias_step_rate = {.slot = 2, .most = 65, .first = 1610612736, .second
    = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_stage_params_t max_pool_grad_0_chain_stages_0_stage_params = {.acc_slot = 2, .add_slot = -1,
    .mask_bits = 0, .out_slot = 3, .channels = 1};
static const mcg_rate_t conv1_weight_next_0_weight_step_weight_params_rate = {.slot = 2, .most = 75, .first =
    1610612736, .second = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv1_conv2d_shift};
static const mcg_weight_params_t conv1_weight_next_0_weight_step_weight_params = {.rate =
    &conv1_weight_next_0_weight_step_weight_params_rate, .residual_bits = 0, .tensor = 2, .taps = 9, .live =
    4, .total = 4, .order = 0};
static const mcg_stage_params_t conv0_h_0_chain_stages_0_stage_params = {.acc_slot = 3, .add_slot = -1,
    .mask_bits = 0, .out_slot = 4, .channels = 4, .more = -2, .multiplier = conv0_conv2d_multiplier, .shift =
    conv0_conv2d_shift, .ratio = 1073741824};
static const mcg_rate_t conv0_bias_next_bias_step_rate = {.slot = 4, .most = 66, .first = 1610612736, .second
    = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv0_conv2d_shift};
static const mcg_rate_t conv0_weight_next_0_weight_step_weight_params_rate = {.slot = 4, .most = 78, .first =
    1610612736, .second = 2147483647, .multiplier = conv0_conv2d_multiplier, .shift = conv0_conv2d_shift};
static const mcg_weight_params_t conv0_weight_next_0_weight_step_weight_params = {.rate =
    &conv0_weight_next_0_weight_step_weight_params_rate, .residual_bits = 0, .tensor = 0, .taps = 9, .live =
    2, .total = 2, .order = 0};

mcg_status_t mcg_model_forward(const mcg_context_t *c);
mcg_status_t mcg_model_forward(const mcg_context_t *c) {
  uint8_t *const A = c->arena;
  uint8_t *const S = c->state;
  /* %conv0: s8[1,9,8,4] q(0.03125,5) = conv2d(%input, %conv0_weight, %conv0_bias) */
  mcg_conv2d(&conv0_conv2d, &conv0_rows, (const int8_t *)(A + 3216), (const int8_t *)(S + 48), NULL, (const int32_t *)(S + 0), (int8_t *)(A + 1376), A + 0);
  /* %max_pool: s8[1,8,7,4] q(0.03125,5) = max_pool(%conv0) */
  mcg_max_pool(&max_pool_conv2d, &max_pool_rows, (const int8_t *)(A + 1376), (int8_t *)(A + 1664));
  /* %clamp: s8[1,8,7,4] q(0.03125,-128) = clamp(%max_pool) */
  mcg_clamp(&clamp_clamp, &clamp_rows, (const int8_t *)(A + 1664), (int8_t *)(A + 1664));
  /* %conv1: s8[1,4,4,4] q(0.03125,-128) = depthwise_conv2d(%clamp, %conv1_weight, %conv1_bias) */
  mcg_depthwise(&conv1_conv2d, &conv1_rows, (const int8_t *)(A + 1664), (const int8_t *)(S + 120), (const int32_t *)(S + 16), (int8_t *)(A + 832), A + 0);
  /* %conv1.mask: u1[1,4,4,4] = clamp_mask(%conv1) */
  mcg_clamp_mask(&conv1_mask_rows, (const int8_t *)(A + 832), (uint8_t *)(A + 1936), 16);
  /* %avg_pool: s8[1,2,2,4] q(0.03125,-128) = avg_pool(%conv1) */
  mcg_avg_pool(&avg_pool_conv2d, &avg_pool_rows, (const int8_t *)(A + 832), (int8_t *)(A + 1888));
  /* %conv2: s8[1,2,2,4] q(0.03125,-128) = conv2d(%avg_pool, %conv2_weight, %conv2_bias) */
  mcg_conv2d(&conv2_conv2d, &conv2_rows, (const int8_t *)(A + 1888), (const int8_t *)(S + 156), NULL, (const int32_t *)(S + 32), (int8_t *)(A + 48), A + 0);
  /* %conv2.mask: u1[1,2,2,4] = clamp_mask(%conv2) */
  mcg_clamp_mask(&conv2_rows, (const int8_t *)(A + 48), (uint8_t *)(A + 64), 8);
  /* %features: s8[1,1,1,4] q(0.03125,-128) = avg_pool(%conv2) */
  mcg_avg_pool(&features_conv2d, &features_rows, (const int8_t *)(A + 48), (int8_t *)(A + 12));
  /* %logits: s32[3] = head(%features, %head_weight, %head_bias) */
  mcg_head(&logits_head, (const int8_t *)(A + 12), (const int16_t *)(S + 184), (const int32_t *)(S + 172), (int32_t *)(A + 3360));
  return MCG_OK;
}


static mcg_status_t mcg_model_infer(const mcg_context_t *c, int32_t *logits) {
  uint8_t *const A = c->arena;
  const int32_t *const result = (const int32_t *)(A + 3360);
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
  mcg_softmax_cross_entropy(&loss_0_softmax, (const int32_t *)(A + 3360), target, (int32_t *)(A + 3372), (int32_t *)(A + 0));
  result->p_label = *(const int32_t *)(A + 3372);
  result->predicted = mcg_argmax((const int32_t *)(A + 3360), MODEL_CLASSES);
  result->saturated = 0;
  /* stop_if_easy(%loss.0, %control) */
  if (mcg_stop_if_easy(c, (const int32_t *)(A + 3372))) {
    result->progress = MCG_STEP_SKIPPED;
    return MCG_OK;
  }
  /* %features.grad: s32[4] = head_input_grad(%head_weight, %loss.1) */
  mcg_head_input_grad(4, 3, (const int16_t *)(S + 184), (const int32_t *)(A + 0), (int32_t *)(A + 32));
  /* %head.next.0: s16[4,3], %head.next.1: s32[3] = head_update(%features, %loss.1, %head_weight, %head_bias,
   * %control) */
  mcg_head_update(&head_next_0_head, c, (const int8_t *)(A + 12), (const int32_t *)(A + 0), (int16_t *)(S + 184), (int32_t *)(S + 172));
  /* stop_if_zero(%features.grad) */
  if (mcg_stop_if_zero((const int32_t *)(A + 32), 4)) {
    result->progress = MCG_STEP_HEAD;
    return MCG_OK;
  }
  /* %features.scaled.0: s32[1,1,1,4] q(1,0), %features.scaled.1: s32[1] = sample_scale(%features.grad) */
  mcg_sample_scale(4, -27, (const int32_t *)(A + 32), (int32_t *)(A + 32), (int32_t *)(A + 3376));
  /* %conv2.h.0: s8[1,2,2,4] q(4 scales@3,E0), %conv2.h.1: s32[1] = chain(%features.scaled.0, %exponents,
   * %conv2.mask) */
  {
    const mcg_stage_t conv2_h_0_chain_stages[1] = {{.p = &conv2_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 64), .out = (int8_t *)(A + 1904), .clamped = (int32_t *)(A + 3380)}};
    const mcg_chain_t conv2_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv2_h_0_chain_stages};
    mcg_avg_pool_grad_s32(&features_conv2d, (const int32_t *)(A + 32), &conv2_h_0_chain, A + 0);
  }
  /* %conv2_bias.next: s32[4] = update(%conv2.h.0, %conv2_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv2_bias_next_bias_step = {.rate = &conv2_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 32), .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 1904), 4, 4, &conv2_bias_next_bias_step, A + 0);
  }
  /* %avg_pool.grad.0: s8[1,2,2,4] q(1,E1), %avg_pool.grad.1: s32[1] = chain(%conv2.h.0, %conv2_weight, %exponents) */
  {
    const mcg_stage_t avg_pool_grad_0_chain_stages[1] = {{.p = &avg_pool_grad_0_chain_stages_0_stage_params, .add
        = NULL, .mask = NULL, .out = (int8_t *)(A + 1920), .clamped = (int32_t *)(A + 3384)}};
    const mcg_chain_t avg_pool_grad_0_chain = {.exponents = exponents, .count = 1, .stages =
        avg_pool_grad_0_chain_stages};
    mcg_conv2d_input_grad(&conv2_conv2d, (const int8_t *)(A + 1904), (const int8_t *)(S + 156), NULL, &avg_pool_grad_0_chain, A + 0);
  }
  /* %conv2_weight.next.0: s8[4,1,1,4] q(4 scales@0,0), %conv2_weight.next.1: s32[4] = update(%avg_pool, %conv2.h.0,
   * %conv2_mean, %conv2_weight, %features.scaled.1, %exponents, %control, %conv2_mean, %conv2_bias.next) */
  {
    const mcg_weight_step_t conv2_weight_next_0_weight_step = {.p =
        &conv2_weight_next_0_weight_step_weight_params, .weight = (int8_t *)(S + 156), .residual = NULL,
        .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .mu = conv2_mean, .bias = (int32_t
        *)(S + 32), .c = c};
    mcg_conv2d_update(&conv2_conv2d, (const int8_t *)(A + 1888), (const int8_t *)(A + 1904), conv2_mean, 48, &conv2_weight_next_0_weight_step, A + 0);
  }
  /* %conv1.h.0: s8[1,4,4,4] q(4 scales@3,E2), %conv1.h.1: s32[1] = chain(%avg_pool.grad.0, %exponents, %conv1.mask) */
  {
    const mcg_stage_t conv1_h_0_chain_stages[1] = {{.p = &conv1_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 1936), .out = (int8_t *)(A + 1208), .clamped = (int32_t *)(A + 3388)}};
    const mcg_chain_t conv1_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv1_h_0_chain_stages};
    mcg_avg_pool_grad_s8(&avg_pool_conv2d, (const int8_t *)(A + 1920), &conv1_h_0_chain, A + 0);
  }
  /* %conv1_bias.next: s32[4] = update(%conv1.h.0, %conv1_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv1_bias_next_bias_step = {.rate = &conv1_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 16), .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 1208), 16, 4, &conv1_bias_next_bias_step, A + 0);
  }
  /* %max_pool.grad.0: s8[1,8,7,4] q(1,E3), %max_pool.grad.1: s32[1] = chain(%conv1.h.0, %conv1_weight, %exponents,
   * %clamp) */
  {
    const mcg_stage_t max_pool_grad_0_chain_stages[1] = {{.p = &max_pool_grad_0_chain_stages_0_stage_params, .add
        = NULL, .mask = (const void *)(A + 1664), .out = (int8_t *)(A + 1888), .clamped = (int32_t *)(A + 3392)}};
    const mcg_chain_t max_pool_grad_0_chain = {.exponents = exponents, .count = 1, .stages =
        max_pool_grad_0_chain_stages};
    mcg_depthwise_input_grad(&conv1_conv2d, (const int8_t *)(A + 1208), (const int8_t *)(S + 120), &max_pool_grad_0_chain, A + 0);
  }
  /* %conv1_weight.next.0: s8[1,3,3,4] q(4 scales@3,0), %conv1_weight.next.1: s32[4] = update(%clamp, %conv1.h.0,
   * %conv1_mean, %conv1_weight, %features.scaled.1, %exponents, %control, %conv1_mean, %conv1_bias.next) */
  {
    const mcg_weight_step_t conv1_weight_next_0_weight_step = {.p =
        &conv1_weight_next_0_weight_step_weight_params, .weight = (int8_t *)(S + 120), .residual = NULL,
        .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .mu = conv1_mean, .bias = (int32_t
        *)(S + 16), .c = c};
    mcg_depthwise_update(&conv1_conv2d, (const int8_t *)(A + 1664), (const int8_t *)(A + 1208), conv1_mean, 0, &conv1_weight_next_0_weight_step, A + 0);
  }
  /* %conv0.h.0: s8[1,9,8,4] q(4 scales@3,E4), %conv0.h.1: s32[1] = chain(%max_pool.grad.0, %conv0, %exponents,
   * %conv0) */
  {
    const mcg_stage_t conv0_h_0_chain_stages[1] = {{.p = &conv0_h_0_chain_stages_0_stage_params, .add = NULL,
        .mask = (const void *)(A + 1376), .out = (int8_t *)(A + 2928), .clamped = (int32_t *)(A + 3396)}};
    const mcg_chain_t conv0_h_0_chain = {.exponents = exponents, .count = 1, .stages = conv0_h_0_chain_stages};
    mcg_max_pool_grad(&max_pool_conv2d, (const int8_t *)(A + 1888), (const int8_t *)(A + 1376), &conv0_h_0_chain, A + 0);
  }
  /* %conv0_bias.next: s32[4] = update(%conv0.h.0, %conv0_bias, %features.scaled.1, %exponents, %control) */
  {
    const mcg_bias_step_t conv0_bias_next_bias_step = {.rate = &conv0_bias_next_bias_step_rate, .bias = (int32_t
        *)(S + 0), .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .c = c};
    mcg_bias_update((const int8_t *)(A + 2928), 72, 4, &conv0_bias_next_bias_step, A + 0);
  }
  /* %conv0_weight.next.0: s8[4,3,3,2] q(4 scales@0,0), %conv0_weight.next.1: s32[4] = update(%input, %conv0.h.0,
   * %conv0_mean, %conv0_weight, %features.scaled.1, %exponents, %control, %conv0_mean, %conv0_bias.next) */
  {
    const mcg_weight_step_t conv0_weight_next_0_weight_step = {.p =
        &conv0_weight_next_0_weight_step_weight_params, .weight = (int8_t *)(S + 48), .residual = NULL,
        .sample_exponent = (const int32_t *)(A + 3376), .exponents = exponents, .mu = conv0_mean, .bias = (int32_t
        *)(S + 0), .c = c};
    mcg_conv2d_update(&conv0_conv2d, (const int8_t *)(A + 3216), (const int8_t *)(A + 2928), conv0_mean, 12, &conv0_weight_next_0_weight_step, A + 0);
  }
  result->progress = MCG_STEP_FULL;
  result->saturated += *(const int32_t *)(A + 3380);
  result->saturated += *(const int32_t *)(A + 3384);
  result->saturated += *(const int32_t *)(A + 3388);
  result->saturated += *(const int32_t *)(A + 3392);
  result->saturated += *(const int32_t *)(A + 3396);
  return MCG_OK;
}

/* What learning starts from, packed (see mcugrad.h); the rest of the state is zero. */
static const uint8_t initial_state[152] =
    {12, 128, 65, 248, 103, 248, 203, 248, 109, 249, 65, 248, 103, 248, 203, 248, 109, 249, 65, 248, 103, 248, 203,
    248, 109, 249, 124, 0, 146, 183, 26, 188, 156, 186, 22, 177, 138, 161, 246, 138, 91, 107, 186, 70, 17, 26, 97,
    231, 171, 173, 237, 107, 40, 35, 92, 212, 138, 125, 176, 32, 207, 188, 231, 80, 248, 222, 2, 100, 5, 228, 1, 92,
    246, 206, 228, 56, 203, 156, 171, 248, 132, 77, 85, 156, 32, 227, 228, 35, 161, 92, 86, 143, 5, 186, 173, 222,
    77, 251, 231, 17, 146, 184, 28, 191, 160, 191, 28, 184, 146, 170, 0, 149, 103, 120, 200, 85, 33, 43, 115, 250,
    191, 194, 3, 131, 64, 60, 118, 239, 166, 155, 206, 63, 239, 221, 9, 115, 146, 185, 30, 194, 164, 196, 34, 191,
    154, 179, 10, 160, 115, 134, 214, 100};
static const mcg_parameter_t parameters[8] = {
    {"conv0_weight", 48, 72},
    {"conv0_bias", 0, 16},
    {"conv1_weight", 120, 36},
    {"conv1_bias", 16, 16},
    {"conv2_weight", 156, 16},
    {"conv2_bias", 32, 16},
    {"head_weight", 184, 24},
    {"head_bias", 172, 12},
};
const mcg_model_t mcg_model = {
    .abi = MCG_ABI,
    .fingerprint = 0x1b51aa4fu,
    .arena_bytes = MODEL_ARENA_BYTES,
    .state_bytes = MODEL_STATE_BYTES,
    .input_offset = 3216,
    .input_bytes = MODEL_INPUT_BYTES,
    .rows = MODEL_ROWS,
    .row_bytes = MODEL_ROW_BYTES,
    .input_rows = MODEL_INPUT_ROWS,
    .classes = MODEL_CLASSES,
    .targets = MODEL_TARGETS,
    .parameter_count = 8,
    .initial_bytes = 152,
    .initial_state = initial_state,
    .parameters = parameters,
    .infer = mcg_model_infer,
    .train = mcg_model_train,
};
