#if MODEL_DSP
/* Bytes 0 and 2, or 1 and 3, in 16-bit lanes. */
static inline uint32_t model_low_bytes(uint32_t lanes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(lanes));
    return result;
}

static inline uint32_t model_high_bytes(uint32_t lanes)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(lanes));
    return result;
}

static inline uint32_t model_multiply_add(uint32_t x, uint32_t y, uint32_t sum)
{
    uint32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(y), "r"(sum));
    return result;
}
#endif
