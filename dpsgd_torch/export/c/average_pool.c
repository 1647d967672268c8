/* Mean of each window's cells inside the picture, halves away from zero. Output may be input. */
static void model_average_pool(const model_window *window, int32_t low, int32_t high,
                               const int8_t *input, int8_t *output)
{
    const int32_t channels = window->channels, line = (int32_t)window->width * channels;
    int32_t y, x, channel, row, column;
    for (y = 0; y < window->out_height; ++y) {
        const int32_t top = y * window->stride_height - window->pad_top;
        const int32_t first_row = model_larger(0, top);
        const int32_t rows = model_smaller(window->height, top + window->kernel_height) - first_row;
        for (x = 0; x < window->out_width; ++x) {
            const int32_t left = x * window->stride_width - window->pad_left;
            const int32_t first_column = model_larger(0, left);
            const int32_t columns =
                model_smaller(window->width, left + window->kernel_width) - first_column;
            const int8_t *corner = input + first_row * line + first_column * channels;
            const int32_t cells = rows * columns;
            for (channel = 0; channel < channels; ++channel, ++corner) {
                int32_t sum = 0;
                for (row = 0; row < rows; ++row) {
                    for (column = 0; column < columns; ++column) {
                        sum += corner[row * line + column * channels];
                    }
                }
                sum = (sum > 0 ? sum + cells / 2 : sum - cells / 2) / cells;
                *output++ = model_clamp(sum, low, high);
            }
        }
    }
}
