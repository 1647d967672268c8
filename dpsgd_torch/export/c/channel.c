/* How the sum of a channel becomes a value. */
typedef struct {
    int32_t bias; /* less the input's zero point times the weights */
    int32_t multiplier;
    int32_t down; /* the shift to the right that follows */
} model_channel;

static inline int8_t model_finish(const model_channel *channel, uint32_t sum, int32_t zero_point,
                                  int32_t low, int32_t high)
{
    const int32_t total = (int32_t)(sum + (uint32_t)channel->bias);
#if MODEL_DSP && MODEL_ONLY_DOWN && !MODEL_LIMITS
    /* model_requantize, whose last halving is left to the instruction that keeps it in int8. */
    int32_t value;
    __asm__("smmulr %0, %1, %2" : "=r"(value) : "r"(2 * total), "r"(channel->multiplier));
    value = ((value + (value >> 31)) >> (channel->down - 1)) + (2 * zero_point + 1);
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(value) : "r"(value) : "cc");
    (void)low;
    (void)high;
    return (int8_t)value;
#else
    const int32_t value = model_requantize(total, channel->multiplier, channel->down);
    return model_clamp(value + zero_point, MODEL_LIMITS ? low : -128, MODEL_LIMITS ? high : 127);
#endif
}

#if MODEL_MVE && MODEL_ONLY_DOWN
/* The same for four channels, up to the clamp; `at` counts words to each from the first. */
static inline int32x4_t model_finish_four(const model_channel *channel, uint32x4_t at,
                                          int32x4_t sum, int32_t zero_point)
{
    const int32_t *first = (const int32_t *)channel;
    const int32x4_t bias = vldrwq_gather_shifted_offset_s32(first, at);
    const int32x4_t multiplier = vldrwq_gather_shifted_offset_s32(first + 1, at);
    const int32x4_t down = vldrwq_gather_shifted_offset_s32(first + 2, at);
    const int32x4_t high = vqrdmulhq_s32(vaddq_s32(sum, bias), multiplier);
    const int32x4_t away = vaddq_s32(high, vshrq_n_s32(high, 31));
    return vaddq_n_s32(vrshlq_s32(away, vnegq_s32(down)), zero_point);
}

static inline void model_store_four(int8_t *output, int32x4_t value, int32_t low, int32_t high)
{
    value = vmaxq_s32(value, vdupq_n_s32(MODEL_LIMITS ? low : -128));
    vstrbq_s32(output, vminq_s32(value, vdupq_n_s32(MODEL_LIMITS ? high : 127)));
}
#endif
