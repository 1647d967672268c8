/* Sum of two tensors: each, and the sum, is scaled and rounded. Output may be either input. */
typedef struct {
    int32_t first, first_shift, second, second_shift, out, out_shift; /* shifts are not positive */
    int16_t first_zero_point, second_zero_point, zero_point, low, high;
} model_addition;

static void model_add(const model_addition *how, int32_t size, const int8_t *first,
                      const int8_t *second, int8_t *output)
{
    for (; size > 0; --size) {
        const int32_t a = (*first++ - how->first_zero_point) * (1 << 20);
        const int32_t b = (*second++ - how->second_zero_point) * (1 << 20);
        const int32_t sum = model_divide(model_high_product(a, how->first), -how->first_shift)
                            + model_divide(model_high_product(b, how->second), -how->second_shift);
        *output++ = model_clamp(
            model_divide(model_high_product(sum, how->out), -how->out_shift) + how->zero_point,
            how->low, how->high);
    }
}
