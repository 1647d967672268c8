/* One factor for all values. Output may be input. */
static void model_rescale(int32_t size, int32_t input_zero_point, int32_t multiplier, int32_t down,
                          int32_t zero_point, int32_t low, int32_t high, const int8_t *input,
                          int8_t *output)
{
    for (; size > 0; --size) {
        const int32_t value = model_requantize(*input++ - input_zero_point, multiplier, down);
        *output++ = model_clamp(value + zero_point, low, high);
    }
}
