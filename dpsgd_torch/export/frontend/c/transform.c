/* A right shift of a negative number must be arithmetic, as it is in every compiler for these. */
typedef char model_shifts_are_arithmetic[((-1 >> 1) == -1) ? 1 : -1];

/* Sample i of a frame under the window, which is symmetric; nothing beyond the frame's end. */
static inline int32_t model_windowed(const int16_t *samples, uint32_t i)
{
    return i < MODEL_FRAME
               ? (samples[i] * (int32_t)model_window[i > MODEL_FRAME / 2 ? MODEL_FRAME - i : i]) >>
                     MODEL_WINDOW_SHIFT
               : 0;
}

/* Half of (real + i imaginary) * (cosine + i sine); 31 fractional bits. */
static inline int32_t model_turned_real(int32_t real, int32_t imaginary, const int32_t *circle)
{
    return (int32_t)(((int64_t)real * circle[0] - (int64_t)imaginary * circle[1]) >> 32);
}

static inline int32_t model_turned_imaginary(int32_t real, int32_t imaginary,
                                             const int32_t *circle)
{
    return (int32_t)(((int64_t)imaginary * circle[0] + (int64_t)real * circle[1]) >> 32);
}

/* cos and -sin of 2 pi turn / MODEL_FFT, from a quarter of a wave; less than three quarters. */
static inline void model_circle(uint32_t turn, int32_t *circle)
{
    const uint32_t quarter = MODEL_FFT / 4, within = turn % quarter;
    const int32_t up = model_sine[within], down = model_sine[quarter - within];
    const uint32_t which = turn / quarter;
    circle[0] = which == 0 ? down : which == 1 ? -up : -down;
    circle[1] = which == 0 ? -up : which == 1 ? -down : up;
}

/* Even samples as real, odd ones as imaginary parts, in the order of their bits reversed. */
static void model_place(const int16_t *samples, int32_t *z)
{
    uint32_t n, reversed = 0;
    for (n = 0; n < MODEL_PLACED; ++n) {
        uint32_t bit = MODEL_FFT / 4;
        int32_t *const to = z + 2 * reversed;
        const int32_t real = model_windowed(samples, 2 * n);
        const int32_t imaginary = model_windowed(samples, 2 * n + 1);
#if MODEL_RADIX_2
        const int32_t far_real = model_windowed(samples, MODEL_FFT / 2 + 2 * n);
        const int32_t far_imaginary = model_windowed(samples, MODEL_FFT / 2 + 2 * n + 1);
        to[0] = real + far_real;
        to[1] = imaginary + far_imaginary;
        to[2] = real - far_real;
        to[3] = imaginary - far_imaginary;
#else
        to[0] = real;
        to[1] = imaginary;
#endif
        for (; reversed & bit; bit >>= 1) {
            reversed ^= bit;
        }
        reversed |= bit;
    }
}

/* A stage of radix 4 in place, everything halved: legs lie `quarter` numbers apart. */
static void model_stage(int32_t *z, uint32_t quarter)
{
    const uint32_t step = MODEL_FFT / 4 / quarter;
    uint32_t j;
    for (j = 0; j < quarter; ++j) {
        int32_t once[2], twice[2], thrice[2];
        int32_t *a = z + 2 * j;
        model_circle(j * step, once);
        model_circle(2 * j * step, twice);
        model_circle(3 * j * step, thrice);
        for (; a < z + MODEL_FFT; a += 8 * quarter) {
            int32_t *const c = a + 2 * quarter, *const b = c + 2 * quarter;
            int32_t *const d = b + 2 * quarter;
            const int32_t ar = a[0] >> 1, ai = a[1] >> 1;
            const int32_t cr = model_turned_real(c[0], c[1], twice);
            const int32_t ci = model_turned_imaginary(c[0], c[1], twice);
            const int32_t br = model_turned_real(b[0], b[1], once);
            const int32_t bi = model_turned_imaginary(b[0], b[1], once);
            const int32_t dr = model_turned_real(d[0], d[1], thrice);
            const int32_t di = model_turned_imaginary(d[0], d[1], thrice);
            a[0] = ar + cr + (br + dr);
            a[1] = ai + ci + (bi + di);
            c[0] = ar - cr + (bi - di);
            c[1] = ai - ci - (br - dr);
            b[0] = ar + cr - (br + dr);
            b[1] = ai + ci - (bi + di);
            d[0] = ar - cr - (bi - di);
            d[1] = ai - ci + (br - dr);
        }
    }
}

static void model_transform(const int16_t *samples, int32_t *z)
{
    uint32_t quarter = MODEL_RADIX_2 ? 2 : 1;
    model_place(samples, z);
    for (; quarter < MODEL_FFT / 2; quarter *= 4) {
        model_stage(z, quarter);
    }
}
