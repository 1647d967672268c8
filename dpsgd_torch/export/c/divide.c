/* value / 2^bits, halves rounded away from zero. */
static inline int32_t model_divide(int32_t value, int32_t bits)
{
    const int32_t mask = (int32_t)((1u << bits) - 1u);
    return (value >> bits) + ((value & mask) > (mask >> 1) + (value < 0));
}
