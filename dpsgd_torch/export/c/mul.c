/* Product of two tensors, either of which may be the same in all cells or all channels: of stride
 * zero. Output may be an input of its size. */
typedef struct {
    int32_t cells, channels;
    int32_t first_cell, first_channel, second_cell, second_channel;
    int32_t multiplier, down;
    int16_t first_zero_point, second_zero_point, zero_point, low, high;
} model_product;

static void model_mul(const model_product *how, const int8_t *first, const int8_t *second,
                      int8_t *output)
{
    int32_t cell, channel;
    for (cell = 0; cell < how->cells; ++cell) {
        const int8_t *a = first + cell * how->first_cell, *b = second + cell * how->second_cell;
        for (channel = 0; channel < how->channels; ++channel) {
            const int32_t product = (*a - how->first_zero_point) * (*b - how->second_zero_point);
            *output++ =
                model_clamp(model_requantize(product, how->multiplier, how->down) + how->zero_point,
                            how->low, how->high);
            a += how->first_channel;
            b += how->second_channel;
        }
    }
}
