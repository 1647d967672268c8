/* One window of `depth` of the channels, copied together; cells outside hold the zero point. */
static void model_gather(const model_window *window, const int8_t *input, int32_t top, int32_t left,
                         int32_t depth, int32_t zero_point, int8_t *patch)
{
    const int32_t line = (int32_t)window->kernel_width * depth;
    const int32_t from = model_larger(0, -left);
    const int32_t to = model_smaller(window->kernel_width, window->width - left);
    const int32_t end = top + window->kernel_height;
    int32_t y, x;
    if (from > 0 || to < window->kernel_width || top < 0 || end > window->height) {
        model_fill(patch, zero_point, window->kernel_height * line);
    }
    for (y = top; y < end; ++y, patch += line) {
        const int8_t *cells = input + (y * window->width + left + from) * window->channels;
        if (y < 0 || y >= window->height) {
            continue;
        }
        if (depth == window->channels) {
            model_copy(patch + from * depth, cells, (to - from) * depth);
            continue;
        }
        for (x = from; x < to; ++x, cells += window->channels) {
            model_copy(patch + x * depth, cells, depth);
        }
    }
}

/* Convolution through a patch: where there is padding, groups, or rows that are no quads. */
static void model_conv_patch(const model_window *window, const model_layer *layers, int32_t groups,
                             int32_t zero_point, const int8_t *input, int8_t *patch, int8_t *output)
{
    const int32_t depth = window->channels / groups;
    int32_t y, x, group;
    for (y = 0; y < window->out_height; ++y) {
        const int32_t top = y * window->stride_height - window->pad_top;
        for (x = 0; x < window->out_width; ++x) {
            const int32_t left = x * window->stride_width - window->pad_left;
            for (group = 0; group < groups; ++group) {
                model_gather(window, input + group * depth, top, left, depth, zero_point, patch);
                model_channels(&layers[group], patch, output);
                output += layers[group].channels;
            }
        }
    }
}
