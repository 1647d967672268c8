/* Convolution in which each channel meets its own filters; weights: kernel row, column, output. */
typedef struct {
    const int8_t *weights;
    const model_channel *channel; /* here, the bias as it is */
    int16_t per_channel; /* outputs of one input channel */
    int16_t input_zero_point, zero_point, low, high;
} model_depthwise_layer;

static void model_depthwise(const model_window *window, const model_depthwise_layer *layer,
                            const int8_t *input, int8_t *output)
{
    const int32_t outputs = (int32_t)window->channels * layer->per_channel;
    int32_t y, x, channel, row, column;
    for (y = 0; y < window->out_height; ++y) {
        const int32_t top = y * window->stride_height - window->pad_top;
        const int32_t first_row = model_larger(0, -top);
        const int32_t end_row = model_smaller(window->kernel_height, window->height - top);
        for (x = 0; x < window->out_width; ++x) {
            const int32_t left = x * window->stride_width - window->pad_left;
            const int32_t first_column = model_larger(0, -left);
            const int32_t end_column = model_smaller(window->kernel_width, window->width - left);
            for (channel = 0; channel < outputs; ++channel) {
                const model_channel *how = &layer->channel[channel];
                uint32_t sum = 0;
                for (row = first_row; row < end_row; ++row) {
                    const int8_t *cell = input
                                         + ((top + row) * window->width + left + first_column)
                                               * window->channels
                                         + channel / layer->per_channel;
                    const int8_t *weight =
                        layer->weights
                        + (row * window->kernel_width + first_column) * outputs + channel;
                    for (column = first_column; column < end_column; ++column) {
                        sum += (uint32_t)((*cell - layer->input_zero_point) * *weight);
                        cell += window->channels;
                        weight += outputs;
                    }
                }
                *output++ = model_finish(how, sum, layer->zero_point, layer->low, layer->high);
            }
        }
    }
}
