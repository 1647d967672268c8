/* Runs of bytes from places that five loops give. */
typedef struct {
    int32_t count[5], step[5], run;
} model_picked;

static void model_pick(const model_picked *how, const int8_t *input, int8_t *output)
{
    int32_t a, b, c, d, e;
    for (a = 0; a < how->count[0]; ++a) {
        for (b = 0; b < how->count[1]; ++b) {
            for (c = 0; c < how->count[2]; ++c) {
                for (d = 0; d < how->count[3]; ++d) {
                    const int8_t *cell = input + a * how->step[0] + b * how->step[1]
                                         + c * how->step[2] + d * how->step[3];
                    for (e = 0; e < how->count[4]; ++e, cell += how->step[4], output += how->run) {
                        model_copy(output, cell, how->run);
                    }
                }
            }
        }
    }
}
