/* Convolution in which each channel meets its own filter, four channels at a time; weights: kernel
 * row, column, channel. */
typedef struct {
    const int8_t *weights;
    const model_channel *channel; /* here, the bias as it is */
    int16_t input_zero_point, zero_point, low, high;
} model_quads_layer;

typedef struct {
    uint32_t a, b, c, d;
} model_quad;

#if MODEL_DSP
/* 10 instructions for four products, whose operands fit the registers: compilers spill them. */
#define MODEL_TAP(cell, weight)                    \
    "ldr     %[x], " cell "\n\t"                   \
    "ldr     %[w], " weight "\n\t"                 \
    "sxtab16 %[u], %[zero], %[x]\n\t"              \
    "sxtb16  %[v], %[w]\n\t"                       \
    "smlabb  %[a], %[u], %[v], %[a]\n\t"           \
    "smlatt  %[c], %[u], %[v], %[c]\n\t"           \
    "sxtab16 %[x], %[zero], %[x], ror #8\n\t"      \
    "sxtb16  %[w], %[w], ror #8\n\t"               \
    "smlabb  %[b], %[x], %[w], %[b]\n\t"           \
    "smlatt  %[d], %[x], %[w], %[d]\n\t"

#define MODEL_TAPS(sums, taps, at, by, apart, less)                                              \
    do {                                                                                         \
        uint32_t x, w, u, v;                                                                     \
        __asm__(taps                                                                             \
                : [a] "+r"((sums).a), [b] "+r"((sums).b), [c] "+r"((sums).c),                    \
                  [d] "+r"((sums).d), [x] "=&r"(x), [w] "=&r"(w), [u] "=&r"(u), [v] "=&r"(v)     \
                : [cell] "r"(at), [weight] "r"(by), [step] "r"(apart), [zero] "r"(less)          \
                : "memory");                                                                     \
    } while (0)

#define MODEL_FIRST MODEL_TAP("[%[cell]]", "[%[weight]]")
#define MODEL_ONE_TAP(sum, cell, weight, step, zero) \
    MODEL_TAPS(sum, MODEL_FIRST, cell, weight, step, zero)

#define MODEL_SECOND MODEL_TAP("[%[cell], %[step]]", "[%[weight], %[step]]")
#define MODEL_THIRD MODEL_TAP("[%[cell], %[step], lsl #1]", "[%[weight], %[step], lsl #1]")

#define MODEL_TWO_TAPS(sum, cell, weight, step, zero) \
    MODEL_TAPS(sum, MODEL_FIRST MODEL_SECOND, cell, weight, step, zero)

#define MODEL_THREE_TAPS(sum, cell, weight, step, zero) \
    MODEL_TAPS(sum, MODEL_FIRST MODEL_SECOND MODEL_THIRD, cell, weight, step, zero)
#else
#define MODEL_ONE_TAP(sum, cell, weight, step, zero)                      \
    do {                                                                  \
        (sum).a += (uint32_t)(((cell)[0] - (zero)) * (weight)[0]);        \
        (sum).b += (uint32_t)(((cell)[1] - (zero)) * (weight)[1]);        \
        (sum).c += (uint32_t)(((cell)[2] - (zero)) * (weight)[2]);        \
        (sum).d += (uint32_t)(((cell)[3] - (zero)) * (weight)[3]);        \
    } while (0)

#define MODEL_TWO_TAPS(sum, cell, weight, step, zero)                       \
    do {                                                                    \
        MODEL_ONE_TAP(sum, cell, weight, step, zero);                       \
        MODEL_ONE_TAP(sum, (cell) + (step), (weight) + (step), step, zero); \
    } while (0)

#define MODEL_THREE_TAPS(sum, cell, weight, step, zero)                             \
    do {                                                                            \
        MODEL_TWO_TAPS(sum, cell, weight, step, zero);                              \
        MODEL_ONE_TAP(sum, (cell) + 2 * (step), (weight) + 2 * (step), step, zero); \
    } while (0)
#endif

#if MODEL_MVE && MODEL_ONLY_DOWN
/* Eight channels, those of even and of odd lanes in sums of their own. A difference of two int8
 * times an int8 is within 16 bits. */
static inline void model_eight(const model_quads_layer *layer, const model_channel *how,
                               int32_t channels, int32_t rows, int32_t columns, int32_t line,
                               int32_t filter_line, const int8_t *cell, const int8_t *weight,
                               int8_t *output)
{
    const uint32x4_t at = vidupq_n_u32(0, 2), threes = vmulq_n_u32(at, 3);
    int32x4_t even = vdupq_n_s32(0), odd = even;
    int16x8_t value = vdupq_n_s16(0);
    for (; rows > 0; --rows, cell += line, weight += filter_line) {
        const int8_t *from = cell, *by = weight;
        int32_t left;
        for (left = columns; left > 0; --left, from += channels, by += channels) {
            const int16x8_t x = vsubq_n_s16(vldrbq_s16(from), layer->input_zero_point);
            const int16x8_t w = vldrbq_s16(by);
            even = vaddq_s32(even, vmullbq_int_s16(x, w));
            odd = vaddq_s32(odd, vmulltq_int_s16(x, w));
        }
    }
    value = vqmovnbq_s32(value, model_finish_four(how, threes, even, layer->zero_point));
    value = vqmovntq_s32(value, model_finish_four(how + 1, threes, odd, layer->zero_point));
    value = vmaxq_s16(value, vdupq_n_s16(MODEL_LIMITS ? layer->low : -128));
    value = vminq_s16(value, vdupq_n_s16(MODEL_LIMITS ? layer->high : 127));
    vstrbq_s16(output, value);
}
#endif

/* All channels of one position: of its window, rows x columns are inside the picture. */
static void model_quads(const model_quads_layer *layer, int32_t channels, int32_t rows,
                        int32_t columns, int32_t line, int32_t filter_line, const int8_t *cells,
                        const int8_t *weights, int8_t *output)
{
    const model_channel *how = layer->channel;
    const int32_t zero_point = layer->zero_point, low = layer->low, high = layer->high;
#if MODEL_DSP
    const uint32_t less = (uint32_t)-layer->input_zero_point & 0xffffu, zero = less | less << 16;
#else
    const int32_t zero = layer->input_zero_point;
#endif
    int32_t left = channels, row, column;
#if MODEL_MVE && MODEL_ONLY_DOWN
    for (; left >= 8; left -= 8, cells += 8, weights += 8, how += 8, output += 8) {
        model_eight(layer, how, channels, rows, columns, line, filter_line, cells, weights,
                    output);
    }
#endif
    for (; left >= 4; left -= 4, cells += 4, weights += 4, how += 4, output += 4) {
        model_quad sum = {0, 0, 0, 0};
        const int8_t *cell = cells, *weight = weights;
        for (row = rows; row > 0; --row, cell += line, weight += filter_line) {
            if (columns == 3) {
                MODEL_THREE_TAPS(sum, cell, weight, channels, zero);
            } else if (columns == 2) {
                MODEL_TWO_TAPS(sum, cell, weight, channels, zero);
            } else {
                const int8_t *at = cell, *by = weight;
                for (column = columns; column > 0; --column, at += channels, by += channels) {
                    MODEL_ONE_TAP(sum, at, by, channels, zero);
                }
            }
        }
        output[0] = model_finish(how, sum.a, zero_point, low, high);
        output[1] = model_finish(how + 1, sum.b, zero_point, low, high);
        output[2] = model_finish(how + 2, sum.c, zero_point, low, high);
        output[3] = model_finish(how + 3, sum.d, zero_point, low, high);
    }
    for (; left > 0; --left, ++cells, ++weights) {
        uint32_t sum = 0;
        for (row = 0; row < rows; ++row) {
            const int8_t *at = cells + row * line, *by = weights + row * filter_line;
            for (column = columns; column > 0; --column, at += channels, by += channels) {
                sum += (uint32_t)((*at - layer->input_zero_point) * *by);
            }
        }
        *output++ = model_finish(how++, sum, zero_point, low, high);
    }
}

static void model_depthwise_quads(const model_window *window, const model_quads_layer *layer,
                                  const int8_t *input, int8_t *output)
{
    const int32_t channels = window->channels;
    const int32_t line = (int32_t)window->width * channels;
    const int32_t filter_line = (int32_t)window->kernel_width * channels;
    int32_t y, x;
    for (y = 0; y < window->out_height; ++y) {
        const int32_t top = y * window->stride_height - window->pad_top;
        const int32_t first_row = model_larger(0, -top);
        const int32_t rows =
            model_smaller(window->kernel_height, window->height - top) - first_row;
        const int8_t *cells = input + (top + first_row) * line;
        for (x = 0; x < window->out_width; ++x, output += channels) {
            const int32_t left = x * window->stride_width - window->pad_left;
            const int32_t first = model_larger(0, -left);
            const int32_t columns =
                model_smaller(window->kernel_width, window->width - left) - first;
            model_quads(layer, channels, rows, columns, line, filter_line,
                        cells + (left + first) * channels,
                        layer->weights + first_row * filter_line + first * channels, output);
        }
    }
}
