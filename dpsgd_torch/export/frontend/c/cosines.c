/* DCT-II. Its even rows are symmetric, its odd ones antisymmetric: half a row is enough. */
static void model_finish(const int32_t *logs, model_feature *features)
{
    const int16_t *row = model_dct;
    uint32_t k, i;
    for (k = 0; k < MODEL_FEATURES; ++k) {
        const int32_t steps = k == 0 ? MODEL_STEPS : MODEL_STEPS * MODEL_FINER;
        int64_t sum = 0;
        for (i = 0; i < MODEL_BANDS / 2; ++i) {
            const int32_t last = logs[MODEL_BANDS - 1 - i];
            sum += (int64_t)(k % 2 ? logs[i] - last : logs[i] + last) * *row++;
        }
        features[k] = model_clamp((int32_t)((sum * steps + (1 << 29)) >> 30));
    }
}
