/* A function of one value, looked up. Output may be input. */
static void model_lookup(int32_t size, const int8_t table[256], const int8_t *input, int8_t *output)
{
    for (; size > 0; --size) {
        *output++ = table[*input++ + 128];
    }
}
