/* In unsigned numbers, where it is defined for negative ones. */
static inline int32_t model_shift_left(int32_t value, int32_t bits)
{
    return (int32_t)((uint32_t)value << bits);
}
