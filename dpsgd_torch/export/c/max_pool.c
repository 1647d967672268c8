/* Largest cell of each window; cells outside the picture do not count. Output may be input. */
static void model_max_pool(const model_window *window, int32_t low, int32_t high,
                           const int8_t *input, int8_t *output)
{
    const int32_t channels = window->channels;
    int32_t y, x, row, column;
    for (y = 0; y < window->out_height; ++y) {
        const int32_t top = y * window->stride_height - window->pad_top;
        const int32_t first_row = model_larger(0, top);
        const int32_t end_row = model_smaller(window->height, top + window->kernel_height);
        for (x = 0; x < window->out_width; ++x) {
            const int32_t left = x * window->stride_width - window->pad_left;
            const int32_t first_column = model_larger(0, left);
            const int32_t end_column = model_smaller(window->width, left + window->kernel_width);
            const int8_t *line = input + (first_row * window->width + first_column) * channels;
            model_copy(output, line, channels);
            for (row = first_row; row < end_row; ++row, line += window->width * channels) {
                const int8_t *cell = line;
                for (column = first_column; column < end_column; ++column, cell += channels) {
                    model_keep_larger(output, cell, channels);
                }
            }
            if (low > -128 || high < 127) {
                for (column = 0; column < channels; ++column) {
                    output[column] = model_clamp(output[column], low, high);
                }
            }
            output += channels;
        }
    }
}
