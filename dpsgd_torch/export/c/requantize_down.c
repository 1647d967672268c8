/* sum * multiplier / 2^(31 + down), rounded twice, as TensorFlow Lite Micro does. |sum| < 2^30 and
 * down > 0, which the exporter has checked, make it short. */
#define MODEL_ONLY_DOWN 1
static inline int32_t model_requantize(int32_t sum, int32_t multiplier, int32_t down)
{
    int32_t high;
#if MODEL_DSP
    __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(2 * sum), "r"(multiplier));
#else
    high = (int32_t)(((int64_t)sum * multiplier + (1 << 30)) >> 31);
#endif
    return (high + (1 << (down - 1)) + (high >> 31)) >> down;
}
