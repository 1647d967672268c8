/* A right shift of a negative number must be arithmetic, as it is in every compiler for these. */
typedef char model_shifts_are_arithmetic[((-1 >> 1) == -1) ? 1 : -1];

/* Sample i of a frame, a quarter of it, under the window, which is symmetric. */
static inline int32_t model_windowed(const int16_t *samples, uint32_t i)
{
    return i < MODEL_FRAME
               ? (samples[i] * (int32_t)model_window[i > MODEL_FRAME / 2 ? MODEL_FRAME - i : i]) >> 2
               : 0;
}

/* Even samples as real, odd ones as imaginary parts, in the order of their bits reversed, and the
 * first stage at once, in which only sums and differences are taken. */
static void model_place(const int16_t *samples, int32_t *z)
{
    uint32_t i, reversed = 0;
    for (i = 0; i < MODEL_FFT / 2; i += 2) {
        const int32_t real = model_windowed(samples, i), imaginary = model_windowed(samples, i + 1);
        int32_t *const to = z + 2 * reversed;
        uint32_t bit = MODEL_FFT / 4;
        to[0] = to[2] = real;
        to[1] = to[3] = imaginary;
        if (i + MODEL_FFT / 2 < MODEL_FRAME) {
            const int32_t far_real = model_windowed(samples, i + MODEL_FFT / 2);
            const int32_t far_imaginary = model_windowed(samples, i + MODEL_FFT / 2 + 1);
            to[0] += far_real;
            to[1] += far_imaginary;
            to[2] -= far_real;
            to[3] -= far_imaginary;
        }
        for (; reversed & bit; bit >>= 1) {
            reversed ^= bit;
        }
        reversed |= bit;
    }
}

typedef struct {
    int32_t cosine, sine;
} model_angle;

/* 2 pi turn / MODEL_FFT, at most half a turn, from a quarter of a wave; 31 fractional bits. */
static inline model_angle model_angle_of(uint32_t turn)
{
    model_angle angle;
    if (turn <= MODEL_FFT / 4) {
        angle.cosine = model_sine[MODEL_FFT / 4 - turn];
        angle.sine = model_sine[turn];
    } else {
        angle.cosine = -model_sine[turn - MODEL_FFT / 4];
        angle.sine = model_sine[MODEL_FFT / 2 - turn];
    }
    return angle;
}

/* Half of (first angle.cosine + second angle.sine): with -first for second, an imaginary part. */
static inline int32_t model_turned(int32_t first, int32_t second, model_angle angle)
{
    return (int32_t)(((int64_t)first * angle.cosine + (int64_t)second * angle.sine) >> 32);
}

#if defined(__GNUC__)
#define MODEL_APART __attribute__((noinline)) /* its loop needs all registers for itself */
#else
#define MODEL_APART
#endif

/* Joins and halves pairs of numbers `apart` words from each other, all of which meet this angle. */
static MODEL_APART void model_join(int32_t *a, uint32_t pairs, uint32_t apart, model_angle angle)
{
    for (;; a += 2 * apart) {
        int32_t *const b = a + apart;
        const int32_t ar = a[0] >> 1, ai = a[1] >> 1, br = b[0], bi = b[1];
        const int32_t real = model_turned(br, bi, angle);
        const int32_t imaginary = model_turned(bi, -br, angle);
        a[0] = ar + real;
        a[1] = ai + imaginary;
        b[0] = ar - real;
        b[1] = ai - imaginary;
        if (--pairs == 0) {
            return;
        }
    }
}

/* Decimation in time, in place: each stage makes transforms of `length` into ones twice as long. */
static void model_transform(const int16_t *samples, int32_t *z)
{
    uint32_t length, j;
    model_place(samples, z);
    for (length = 2; length < MODEL_FFT / 2; length *= 2) {
        const uint32_t step = MODEL_FFT / 2 / length;
        for (j = 0; j < length; ++j) {
            model_join(z + 2 * j, step / 2, 2 * length, model_angle_of(j * step));
        }
    }
}
