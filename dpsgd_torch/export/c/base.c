/* A right shift of a negative number must be arithmetic, as it is in every compiler for these. */
typedef char model_shifts_are_arithmetic[((-1 >> 1) == -1) ? 1 : -1];

#if defined(__ARM_BIG_ENDIAN) || !defined(__ARM_FEATURE_UNALIGNED) || defined(MODEL_PORTABLE)
#define MODEL_DSP 0
#define MODEL_MVE 0
#else
#ifdef __ARM_FEATURE_DSP /* Cortex-M4, M7, M33: two 16-bit products an instruction */
#define MODEL_DSP 1
#else
#define MODEL_DSP 0
#endif
#ifdef __ARM_FEATURE_MVE /* Cortex-M55: eight */
#define MODEL_MVE 1
#else
#define MODEL_MVE 0
#endif
#endif
#if MODEL_MVE
#include <arm_mve.h>
#endif
