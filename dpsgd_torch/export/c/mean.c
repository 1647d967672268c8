/* Mean over the middle one of three axes, with a scale of its own. Output may be input. */
static void model_mean(int32_t outer, int32_t count, int32_t inner, int32_t input_zero_point,
                       int32_t multiplier, int32_t down, int32_t zero_point, const int8_t *input,
                       int8_t *output)
{
    int32_t i, k;
    for (; outer > 0; --outer, input += count * inner) {
        for (i = 0; i < inner; ++i) {
            int32_t sum = -input_zero_point * count;
            for (k = 0; k < count; ++k) {
                sum += input[k * inner + i];
            }
            *output++ =
                model_clamp(model_requantize(sum, multiplier, down) + zero_point, -128, 127);
        }
    }
}
