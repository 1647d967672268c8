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
