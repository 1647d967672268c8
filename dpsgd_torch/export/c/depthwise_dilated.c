/* Convolution in which each channel meets its own filters, whose cells lie `down` and `across` apart. */
typedef struct {
    const int8_t *weights;
    const model_channel *channel; /* here, the bias as it is */
    int16_t per_channel, down, across;
    int16_t input_zero_point, zero_point, low, high;
} model_dilated_layer;

static void model_depthwise_dilated(const model_window *window, const model_dilated_layer *layer,
                                    const int8_t *input, int8_t *output)
{
    const int32_t outputs = (int32_t)window->channels * layer->per_channel;
    int32_t y, x, channel, row, column;
    for (y = 0; y < window->out_height; ++y) {
        for (x = 0; x < window->out_width; ++x) {
            for (channel = 0; channel < outputs; ++channel) {
                const int8_t *weight = layer->weights + channel;
                int32_t at = y * window->stride_height - window->pad_top;
                uint32_t sum = 0;
                for (row = 0; row < window->kernel_height; ++row, at += layer->down) {
                    int32_t left = x * window->stride_width - window->pad_left;
                    for (column = 0; column < window->kernel_width;
                         ++column, left += layer->across, weight += outputs) {
                        if (at >= 0 && at < window->height && left >= 0 && left < window->width) {
                            const int8_t *cell =
                                input + (at * window->width + left) * window->channels;
                            sum += (uint32_t)((cell[channel / layer->per_channel]
                                               - layer->input_zero_point)
                                              * *weight);
                        }
                    }
                }
                *output++ = model_finish(&layer->channel[channel], sum, layer->zero_point,
                                         layer->low, layer->high);
            }
        }
    }
}
