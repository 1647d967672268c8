/* Rows of one part of the channels into rows of all, `stride` apart. */
static void model_join(int32_t rows, int32_t part, int32_t stride, const int8_t *input,
                       int8_t *output)
{
    for (; rows > 0; --rows, input += part, output += stride) {
        model_copy(output, input, part);
    }
}
