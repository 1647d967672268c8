/* The picture inside a frame of the zero point. */
static void model_pad(int32_t height, int32_t line, int32_t top, int32_t bottom, int32_t left,
                      int32_t right, int32_t zero_point, const int8_t *input, int8_t *output)
{
    const int32_t out_line = left + line + right;
    model_fill(output, zero_point, (top + height + bottom) * out_line);
    output += top * out_line + left;
    for (; height > 0; --height, input += line, output += out_line) {
        model_copy(output, input, line);
    }
}
