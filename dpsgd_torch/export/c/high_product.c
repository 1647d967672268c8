/* value * factor / 2^31, halves rounded up. */
static inline int32_t model_high_product(int32_t value, int32_t factor)
{
    return (int32_t)(((int64_t)value * factor + (1 << 30)) >> 31);
}
