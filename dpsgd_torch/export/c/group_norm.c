/* What a group's values are less their mean, over their deviation, by gain and bias of their
 * channel. Output may be input, or begin before it. */
typedef struct {
    int32_t gain;   /* in units that `down` tells */
    int32_t offset; /* bias, zero point and a half, with `fraction` bits */
} model_norm_channel;

typedef struct {
    int64_t epsilon; /* counted as the squares are, with `widen` bits more */
    const model_norm_channel *channels;
    int32_t rows, positions, groups, depth; /* depth: channels of a group */
    int32_t widen;                          /* negative: bits fewer */
    int32_t reciprocal, reciprocal_down;    /* of a group's count, so that 23 bits are left */
    int32_t down, fraction;
} model_norm;

/* 1 / sqrt(x / 2^30) for x in [2^30, 2^32), 31 fractional bits: a line, within a tenth, then four
 * of Newton's steps. */
static uint32_t model_inverse_root(uint32_t x)
{
    uint32_t root = 2362232013u - (uint32_t)(((uint64_t)x * 1395864371u) >> 32);
    int i;
    for (i = 0; i < 4; ++i) {
        const uint32_t square = (uint32_t)(((uint64_t)root * root) >> 32);
        const uint32_t near_one = (uint32_t)(((uint64_t)x * square) >> 30);
        root = (uint32_t)(((uint64_t)root * (3221225472u - near_one)) >> 31);
    }
    return root > 2147483647u ? 2147483647u : root;
}

/* Sum and sum of squares of `lines` rows, `length` values each, with a `skip` between. */
static void model_moments(const int8_t *x, int32_t lines, int32_t length, int32_t skip,
                          int32_t *total, int32_t *total_squares)
{
    int32_t sum = 0, squares = 0;
    for (; lines > 0; --lines, x += skip) {
        int32_t left = length;
#if MODEL_DSP
        for (; left >= 4; left -= 4, x += 4) {
            const uint32_t bytes = model_load(x);
            const uint32_t low = model_low_bytes(bytes), high = model_high_bytes(bytes);
            squares = (int32_t)model_multiply_add(low, low, (uint32_t)squares);
            squares = (int32_t)model_multiply_add(high, high, (uint32_t)squares);
            sum = (int32_t)model_multiply_add(low, 0x00010001u, (uint32_t)sum);
            sum = (int32_t)model_multiply_add(high, 0x00010001u, (uint32_t)sum);
        }
#endif
        for (; left > 0; --left) {
            const int32_t value = *x++;
            sum += value;
            squares += value * value;
        }
    }
    *total = sum;
    *total_squares = squares;
}

static inline int8_t model_normal(int32_t x, uint32_t gain, uint32_t offset, int32_t fraction,
                                  int32_t low, int32_t high)
{
    const int32_t value = (int32_t)(gain * (uint32_t)x + offset) >> fraction;
#if MODEL_DSP
    int32_t kept;
    __asm__("ssat %0, #8, %1" : "=r"(kept) : "r"(value) : "cc");
    return low > -128 || high < 127 ? model_clamp(kept, low, high) : (int8_t)kept;
#else
    return model_clamp(value, low, high);
#endif
}

/* (gain, offset) of each channel of a group; or, where it has one value a channel, the output. */
static void model_norm_group(const model_norm *how, const model_norm_channel *channels,
                             int32_t low, int32_t high, const int8_t *input, int8_t *output,
                             uint32_t *factors)
{
    const int32_t count = how->positions * how->depth, skip = (how->groups - 1) * how->depth;
    int32_t sum, squares, down = how->down, mean, j;
    int64_t varies;
    uint64_t spread;
    uint32_t root;
    model_moments(input, skip ? how->positions : 1, skip ? how->depth : count, skip, &sum,
                  &squares);
    varies = (int64_t)squares * count - (int64_t)sum * sum;
    spread = (uint64_t)varies;
    spread = how->widen < 0 ? spread >> -how->widen : spread << how->widen;
    spread = (spread + (uint64_t)how->epsilon) | 1u;
    for (; !(spread >> 62); spread <<= 2) {
        --down;
    }
    down = down > 63 ? 63 : down < 1 ? 1 : down;
    root = varies ? model_inverse_root((uint32_t)(spread >> 32)) : 0u;
    mean = (int32_t)(((int64_t)sum * how->reciprocal + ((int64_t)1 << (how->reciprocal_down - 1)))
                     >> how->reciprocal_down);
    for (j = 0; j < how->depth; ++j) {
        const int32_t gain = (int32_t)(((int64_t)channels[j].gain * root
                                        + ((int64_t)1 << (down - 1))) >> down);
        const int64_t shift = ((int64_t)gain * mean + (1 << 22)) >> 23;
        const uint32_t offset = (uint32_t)channels[j].offset - (uint32_t)shift;
        if (how->positions == 1) {
            output[j] = model_normal(input[j], (uint32_t)gain, offset, how->fraction, low, high);
        } else {
            *factors++ = (uint32_t)gain;
            *factors++ = offset;
        }
    }
}

static void model_group_norm(const model_norm *how, int32_t low, int32_t high, const int8_t *input,
                             int8_t *output, int8_t *scratch)
{
    const int32_t width = how->groups * how->depth, fraction = how->fraction;
    uint32_t *const factors = (uint32_t *)(void *)scratch; /* words of the arena */
    int32_t row, i, j;
    for (row = how->rows; row > 0; --row) {
        for (j = 0; j < width; j += how->depth) {
            model_norm_group(how, how->channels + j, low, high, input + j, output + j,
                             factors + 2 * j);
        }
        if (how->positions == 1) {
            input += width;
            output += width;
            continue;
        }
        for (i = how->positions; i > 0; --i) {
            const uint32_t *factor = factors;
            for (j = width; j > 0; --j, factor += 2) {
                *output++ = model_normal(*input++, factor[0], factor[1], fraction, low, high);
            }
        }
    }
}
