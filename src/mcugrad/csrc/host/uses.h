/* What the calls of a model ask of the kernels; the compiler leaves out the rest.  On the host everything is there, so that
 * models share its objects; for a device a model's folder has its own (emit/uses.py). */
#ifndef MCG_USES_H
#define MCG_USES_H

#define MCG_USES_GAPS 1             /* convolutions whose windows have gaps */
#define MCG_USES_DEPTHWISE_PLAIN 1  /* depthwise convolutions that mcg_depthwise_packed may refuse */
#define MCG_USES_ROWS_12 1          /* rows of depthwise windows of 2 or 3 columns */
#define MCG_USES_ROWS_13 1          /* of 4 or 5 */
#define MCG_USES_ROWS_14 1          /* of 6 or 7 */
#define MCG_USES_ROWS_22 1          /* of stride 2, of 2 or 3 */
#define MCG_USES_ROWS_23 1          /* of 4 or 5 */
#define MCG_USES_ROWS_24 1          /* of 6 or 7 */
#define MCG_USES_WINDOW_GRADS 1     /* input gradients of convolutions other than 1x1 */
#define MCG_USES_DEPTHWISE_TAPS 1   /* depthwise input gradients with large strides, gaps, or channels that are no quads */
#define MCG_USES_DEPTHWISE_HALVES 1 /* 3x3 depthwise input gradients of stride 2 */
#define MCG_USES_SINGLE_ROWS 1      /* of these, an odd number of rows */
#define MCG_USES_DEPTHWISE_QUARTERS 1 /* larger ones of stride 2 by planes */
#define MCG_USES_UPDATE_TAPS 1      /* depthwise weight updates that read their operands as they are */
#define MCG_USES_UPDATE_FEW 1       /* of channels that are no quads */
#define MCG_USES_UPDATE_PLANES 1    /* others, that have room to take them apart */
#define MCG_USES_UPDATE_FIVES 1     /* of these, windows with rows of five or more taps */
#define MCG_USES_POOL_WINDOWS 1     /* gradients of average pools of several windows, or of channels that are no quads */
#define MCG_USES_BYTE_MASKS 1       /* stages masked by the clamp's output instead of bits */
#define MCG_USES_WINDOW_UPDATES 1   /* weight updates of convolutions other than 1x1 */
#define MCG_USES_SUMS 1             /* gradients that are the sum of several calls */
#define MCG_USES_HELD 1             /* steps that several samples make */
#define MCG_USES_MEANS 1            /* centred weights */
#define MCG_USES_DELTAS 1           /* biases that move by an int16 delta */
#define MCG_USES_ODD_ROWS 1         /* weights with four, an odd number of channels of each output */
#define MCG_USES_RESIDUAL_0 1       /* weights without residual bits */
#define MCG_USES_RESIDUAL_8 1       /* weights with eight */

#endif
