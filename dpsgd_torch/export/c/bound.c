/* Each value between two ends. Output may be input. */
static void model_bound(int32_t size, int32_t low, int32_t high, const int8_t *input,
                        int8_t *output)
{
    for (; size > 0; --size) {
        *output++ = model_clamp(*input++, low, high);
    }
}
