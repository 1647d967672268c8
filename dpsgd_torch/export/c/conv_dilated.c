/* Convolution whose kernel's cells lie `down` and `across` apart, through a patch. */
static void model_conv_dilated(const model_window *window, const model_layer *layers,
                               int32_t groups, int32_t down, int32_t across, int32_t zero_point,
                               const int8_t *input, int8_t *patch, int8_t *output)
{
    const int32_t depth = window->channels / groups;
    int32_t y, x, group, row, column;
    for (y = 0; y < window->out_height; ++y) {
        for (x = 0; x < window->out_width; ++x) {
            for (group = 0; group < groups; ++group) {
                int32_t at = y * window->stride_height - window->pad_top;
                int8_t *cell = patch;
                for (row = 0; row < window->kernel_height; ++row, at += down) {
                    int32_t left = x * window->stride_width - window->pad_left;
                    for (column = 0; column < window->kernel_width; ++column, left += across) {
                        if (at < 0 || at >= window->height || left < 0 || left >= window->width) {
                            model_fill(cell, zero_point, depth);
                        } else {
                            model_copy(cell,
                                       input + (at * window->width + left) * window->channels
                                           + group * depth,
                                       depth);
                        }
                        cell += depth;
                    }
                }
                model_channels(&layers[group], patch, output);
                output += layers[group].channels;
            }
        }
    }
}
