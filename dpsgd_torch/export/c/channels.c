/* What one output position needs: each channel is a sum over rows of inputs, `stride` bytes apart,
 * `quads` times four inputs long (`last_quads` in the last row).
 *
 * Weights lie in 16-bit lanes, a + 256 b, where a belongs to an even channel and b to the odd one
 * after it. One multiplication by the lane sums both, one by its low byte sums a alone, and b is
 * the difference / 256: nothing is lost while |sum of b| < 2^23. The exporter has checked that, or
 * cut the rows into several chunks, each with a sum of its own.
 * A quad of inputs x0..x3 meets lanes (x0, x2) and then lanes (x1, x3) of each pair of channels. */
typedef struct {
    const uint32_t *weights;
    const model_channel *channel;
    int32_t stride;
    uint16_t chunks, rows, quads, last_quads, channels;
    int16_t zero_point, low, high;
} model_layer;

#if MODEL_DSP
typedef uint32_t model_inputs; /* two inputs in 16-bit lanes */

static inline model_inputs model_even(const int8_t *quad)
{
    return model_low_bytes(model_load(quad));
}

static inline model_inputs model_odd(const int8_t *quad)
{
    return model_high_bytes(model_load(quad));
}

static inline uint32_t model_add_low(uint32_t sum, uint32_t lanes, model_inputs inputs)
{
    return model_multiply_add(model_low_bytes(lanes), inputs, sum);
}

static inline uint32_t model_add_both(uint32_t sum, uint32_t lanes, model_inputs inputs)
{
    return model_multiply_add(lanes, inputs, sum);
}
#else
typedef struct {
    int32_t first, second;
} model_inputs;

static inline model_inputs model_even(const int8_t *quad)
{
    model_inputs inputs;
    inputs.first = quad[0];
    inputs.second = quad[2];
    return inputs;
}

static inline model_inputs model_odd(const int8_t *quad)
{
    return model_even(quad + 1);
}

static inline uint32_t model_add_low(uint32_t sum, uint32_t lanes, model_inputs inputs)
{
    const int32_t first = (int8_t)(lanes & 0xffu), second = (int8_t)((lanes >> 16) & 0xffu);
    return sum + (uint32_t)(first * inputs.first) + (uint32_t)(second * inputs.second);
}

static inline uint32_t model_add_both(uint32_t sum, uint32_t lanes, model_inputs inputs)
{
    const int32_t first = (int16_t)(lanes & 0xffffu), second = (int16_t)(lanes >> 16);
    return sum + (uint32_t)(first * inputs.first) + (uint32_t)(second * inputs.second);
}
#endif

/* Sums of four channels over one row; the weights it has met are behind it afterwards. */
typedef struct {
    uint32_t low0, both0, low1, both1;
    const uint32_t *weights;
} model_lanes;

#if MODEL_MVE
static inline uint32_t model_add_low8(uint32_t sum, uint32x4_t lanes, int16x8_t inputs)
{
    const int16x8_t low = vmovlbq_s8(vreinterpretq_s8_u32(lanes));
    return (uint32_t)vmladavaq_s16((int32_t)sum, low, inputs);
}

static inline uint32_t model_add_both8(uint32_t sum, uint32x4_t lanes, int16x8_t inputs)
{
    return (uint32_t)vmladavaq_s16((int32_t)sum, vreinterpretq_s16_u32(lanes), inputs);
}

static inline void model_add_four(model_lanes *sum, const int8_t *input, uint32_t quads)
{
    for (; quads >= 4; quads -= 4, input += 16, sum->weights += 16) {
        const int8x16_t x = vldrbq_s8(input);
        const int16x8_t even = vmovlbq_s8(x), odd = vmovltq_s8(x);
        const uint32x4x4_t w = vld4q_u32(sum->weights);
        sum->low0 = model_add_low8(sum->low0, w.val[0], even);
        sum->both0 = model_add_both8(sum->both0, w.val[0], even);
        sum->low1 = model_add_low8(sum->low1, w.val[1], even);
        sum->both1 = model_add_both8(sum->both1, w.val[1], even);
        sum->low0 = model_add_low8(sum->low0, w.val[2], odd);
        sum->both0 = model_add_both8(sum->both0, w.val[2], odd);
        sum->low1 = model_add_low8(sum->low1, w.val[3], odd);
        sum->both1 = model_add_both8(sum->both1, w.val[3], odd);
    }
    for (; quads > 0; --quads, input += 4, sum->weights += 4) {
        const uint32_t *w = sum->weights;
        const model_inputs even = model_even(input), odd = model_odd(input);
        sum->low0 = model_add_low(model_add_low(sum->low0, w[0], even), w[2], odd);
        sum->both0 = model_add_both(model_add_both(sum->both0, w[0], even), w[2], odd);
        sum->low1 = model_add_low(model_add_low(sum->low1, w[1], even), w[3], odd);
        sum->both1 = model_add_both(model_add_both(sum->both1, w[1], even), w[3], odd);
    }
}
#elif MODEL_DSP
/* 17 instructions for 16 products, which no compiler finds by itself. */
#define MODEL_QUAD                            \
    "ldr     %[odd], [%[input]], #4\n\t"      \
    "ldrd    %[w0], %[w1], [%[weights]], #8\n\t" \
    "sxtb16  %[even], %[odd]\n\t"             \
    "sxtb16  %[odd], %[odd], ror #8\n\t"      \
    "smlad   %[both0], %[w0], %[even], %[both0]\n\t" \
    "sxtb16  %[w0], %[w0]\n\t"                \
    "smlad   %[both1], %[w1], %[even], %[both1]\n\t" \
    "sxtb16  %[w1], %[w1]\n\t"                \
    "smlad   %[low0], %[w0], %[even], %[low0]\n\t" \
    "smlad   %[low1], %[w1], %[even], %[low1]\n\t" \
    "ldrd    %[w0], %[w1], [%[weights]], #8\n\t" \
    "smlad   %[both0], %[w0], %[odd], %[both0]\n\t" \
    "sxtb16  %[w0], %[w0]\n\t"                \
    "smlad   %[both1], %[w1], %[odd], %[both1]\n\t" \
    "sxtb16  %[w1], %[w1]\n\t"                \
    "smlad   %[low0], %[w0], %[odd], %[low0]\n\t" \
    "smlad   %[low1], %[w1], %[odd], %[low1]\n\t"

static inline void model_add_four(model_lanes *sum, const int8_t *input, uint32_t quads)
{
    uint32_t even, odd, w0, w1;
    __asm__ volatile("b       2f\n"
                     "1:\n\t" MODEL_QUAD MODEL_QUAD
                     "2:\n\t"
                     "subs    %[quads], %[quads], #2\n\t"
                     "bhs     1b\n\t"
                     "adds    %[quads], %[quads], #1\n\t"
                     "bne     3f\n\t" MODEL_QUAD
                     "3:"
                     : [low0] "+r"(sum->low0), [both0] "+r"(sum->both0), [low1] "+r"(sum->low1),
                       [both1] "+r"(sum->both1), [weights] "+r"(sum->weights), [input] "+r"(input),
                       [quads] "+r"(quads), [even] "=&r"(even), [odd] "=&r"(odd), [w0] "=&r"(w0),
                       [w1] "=&r"(w1)
                     :
                     : "cc", "memory");
}
#else
static inline void model_add_four(model_lanes *sum, const int8_t *input, uint32_t quads)
{
    for (; quads > 0; --quads, input += 4, sum->weights += 4) {
        const uint32_t *w = sum->weights;
        const model_inputs even = model_even(input), odd = model_odd(input);
        sum->low0 = model_add_low(model_add_low(sum->low0, w[0], even), w[2], odd);
        sum->both0 = model_add_both(model_add_both(sum->both0, w[0], even), w[2], odd);
        sum->low1 = model_add_low(model_add_low(sum->low1, w[1], even), w[3], odd);
        sum->both1 = model_add_both(model_add_both(sum->both1, w[1], even), w[3], odd);
    }
}
#endif

/* The same for two channels. */
static inline void model_add_two(model_lanes *sum, const int8_t *input, uint32_t quads)
{
    for (; quads > 0; --quads, input += 4, sum->weights += 2) {
        const uint32_t *w = sum->weights;
        const model_inputs even = model_even(input), odd = model_odd(input);
        sum->low0 = model_add_low(model_add_low(sum->low0, w[0], even), w[1], odd);
        sum->both0 = model_add_both(model_add_both(sum->both0, w[0], even), w[1], odd);
    }
}

static inline uint32_t model_odd_channel(uint32_t both, uint32_t low)
{
    return (uint32_t)((int32_t)(both - low) >> 8);
}

/* All channels of one position. */
static void model_channels(const model_layer *layer, const int8_t *input, int8_t *output)
{
    const model_channel *channel = layer->channel;
    const int32_t zero_point = layer->zero_point, low = layer->low, high = layer->high;
    int32_t left = layer->channels;
    model_lanes sum;
    sum.weights = layer->weights;
    while (left > 0) {
        const int8_t *row = input;
        uint32_t a = 0, b = 0, c = 0, d = 0, sums[4], chunks, rows;
        int32_t i;
        for (chunks = MODEL_CHUNKS > 1 ? layer->chunks : 1; chunks > 0; --chunks) {
            sum.low0 = sum.both0 = sum.low1 = sum.both1 = 0;
            for (rows = layer->rows; rows > 0; --rows, row += layer->stride) {
                const uint32_t quads = chunks + rows == 2 ? layer->last_quads : layer->quads;
                if (left > 2) {
                    model_add_four(&sum, row, quads);
                } else {
                    model_add_two(&sum, row, quads);
                }
            }
            a += sum.low0;
            b += model_odd_channel(sum.both0, sum.low0);
            c += sum.low1;
            d += model_odd_channel(sum.both1, sum.low1);
        }
        if (left >= 4) {
#if MODEL_MVE && MODEL_ONLY_DOWN
            const int32x4_t total = {(int32_t)a, (int32_t)b, (int32_t)c, (int32_t)d};
            const uint32x4_t threes = vmulq_n_u32(vidupq_n_u32(0, 1), 3);
            model_store_four(output, model_finish_four(channel, threes, total, zero_point), low,
                             high);
#else
            output[0] = model_finish(channel, a, zero_point, low, high);
            output[1] = model_finish(channel + 1, b, zero_point, low, high);
            output[2] = model_finish(channel + 2, c, zero_point, low, high);
            output[3] = model_finish(channel + 3, d, zero_point, low, high);
#endif
            output += 4;
            channel += 4;
            left -= 4;
            continue;
        }
        sums[0] = a;
        sums[1] = b;
        sums[2] = c;
        sums[3] = d;
        for (i = 0; i < 4 && left > 0; ++i, --left, ++channel) {
            *output++ = model_finish(channel, sums[i], zero_point, low, high);
        }
    }
}
