/* e^x for x <= 0: x has 26 fractional bits, the result 31. As in TensorFlow Lite Micro: a
 * polynomial on [-1/4, 0), then one factor for each higher bit of -x. */
static int32_t model_exp(int32_t x)
{
    static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308,
                                       39332535,   720401,     242};
    const int32_t quarter = 1 << 24;
    const int32_t fraction = (x & (quarter - 1)) - quarter;
    const uint32_t rest = (uint32_t)(fraction - x);
    const int32_t t = fraction * 32 + (1 << 28);
    const int32_t t2 = model_high_product(t, t);
    const int32_t t3 = model_high_product(t2, t);
    const int32_t t4 = model_high_product(t2, t2);
    const int32_t tail =
        model_divide(model_high_product(model_divide(t4, 2) + t3, 715827883) + t2, 1);
    int32_t result = 1895147668 + model_high_product(1895147668, t + tail);
    int i;
    if (x == 0) {
        return INT32_MAX;
    }
    for (i = 0; i < 7; ++i) {
        if (rest & ((uint32_t)quarter << i)) {
            result = model_high_product(result, factors[i]);
        }
    }
    return result;
}

/* 1 / (1 + x) for x in [0, 1), 31 fractional bits, by three of Newton's steps. */
static int32_t model_reciprocal(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t result = 1515870810 + model_high_product(half, -1010580540);
    int i;
    for (i = 0; i < 3; ++i) {
        const int32_t left = (1 << 29) - model_high_product(half, result);
        result += model_shift_left(model_high_product(result, left), 2);
    }
    return result >= (1 << 30) ? INT32_MAX : model_shift_left(result, 1);
}

/* Output scale 1/256, zero point -128. Output may be input. */
static void model_softmax(int32_t size, int32_t multiplier, int32_t shift, int32_t diff_min,
                          const int8_t *input, int8_t *output)
{
    int32_t largest = -128, sum = 0, i, zeros = 0;
    int32_t scale;
    for (i = 0; i < size; ++i) {
        largest = input[i] > largest ? input[i] : largest;
    }
    for (i = 0; i < size; ++i) {
        const int32_t diff = input[i] - largest;
        if (diff >= diff_min) {
            const int32_t x = model_high_product(model_shift_left(diff, shift), multiplier);
            sum += model_divide(model_exp(x), 12);
        }
    }
    while (!(((uint32_t)sum << zeros) & 0x80000000u)) {
        ++zeros;
    }
    scale = model_reciprocal((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
    for (i = 0; i < size; ++i) {
        const int32_t diff = input[i] - largest;
        int32_t value = -128;
        if (diff >= diff_min) {
            const int32_t x = model_high_product(model_shift_left(diff, shift), multiplier);
            value += model_divide(model_high_product(scale, model_exp(x)), 12 - zeros + 31 - 8);
        }
        output[i] = model_clamp(value, -128, 127);
    }
}
