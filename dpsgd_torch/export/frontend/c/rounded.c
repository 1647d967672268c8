static void model_finish(const int32_t *logs, model_feature *features)
{
    uint32_t i;
    for (i = 0; i < MODEL_FEATURES; ++i) {
        features[i] = model_clamp((logs[i] * MODEL_STEPS + (1 << 14)) >> 15);
    }
}
