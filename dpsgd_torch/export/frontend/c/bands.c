/* Power of a bin of the real waveform's spectrum, / 2^10. */
static inline uint64_t model_power(const int32_t *z, uint32_t bin)
{
    const uint32_t half = MODEL_FFT / 2;
    const int32_t *const a = z + 2 * (bin % half), *const b = z + 2 * ((half - bin) % half);
    const int32_t odd_real = (a[1] >> 1) + (b[1] >> 1);
    const int32_t odd_imaginary = (b[0] >> 1) - (a[0] >> 1);
    const model_angle angle = model_angle_of(bin);
    const int32_t real =
        (a[0] >> 2) + (b[0] >> 2) + model_turned(odd_real, odd_imaginary, angle);
    const int32_t imaginary =
        (a[1] >> 2) - (b[1] >> 2) + model_turned(odd_imaginary, -odd_real, angle);
    return (uint64_t)((int64_t)real * real + (int64_t)imaginary * imaginary) >> 10;
}

/* log2 of what is not zero, 15 fractional bits: a straight line between 64 points an octave. */
static int32_t model_log2(uint64_t value)
{
    int32_t exponent = 63, step, low;
    uint32_t fraction;
    for (step = 32; step > 0; step /= 2) {
        if (!(value >> (64 - step))) {
            value <<= step;
            exponent -= step;
        }
    }
    fraction = (uint32_t)(value >> 41) & 0x3fffffu;
    low = model_log[fraction >> 16];
    return (exponent << 15) + low +
           (int32_t)(((uint32_t)(model_log[(fraction >> 16) + 1] - low) * (fraction & 0xffffu)) >>
                     16);
}

/* Every bin between two centres is shared by their bands: what rises in one falls in the other. */
static void model_bands(const int32_t *z, int32_t logs[MODEL_BANDS])
{
    const uint16_t *rise = model_rise;
    uint64_t before = 0;
    uint32_t band, bin = model_edges[0];
    for (band = 0; band <= MODEL_BANDS; ++band) {
        uint64_t total = 0, rising = 0;
        for (; bin < model_edges[band + 1]; ++bin) {
            const uint64_t power = model_power(z, bin);
            total += power;
            rising += power * *rise++;
        }
        if (band > 0) {
            logs[band - 1] = model_log2(before + ((total << 15) - rising) + MODEL_FLOOR) -
                             MODEL_REFERENCE;
        }
        before = rising;
    }
}
