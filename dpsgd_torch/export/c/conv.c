/* Convolution whose window never leaves the picture: rows are read where they lie. */
static void model_conv(const model_window *window, const model_layer *layer, const int8_t *input,
                       int8_t *output)
{
    const int32_t right = (int32_t)window->stride_width * window->channels;
    const int32_t down = (int32_t)window->stride_height * window->width * window->channels;
    int32_t y, x;
    for (y = 0; y < window->out_height; ++y, input += down) {
        const int8_t *corner = input;
        for (x = 0; x < window->out_width; ++x, corner += right) {
            model_channels(layer, corner, output);
            output += layer->channels;
        }
    }
}
