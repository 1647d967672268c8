void model_features(const int16_t samples[MODEL_FRAME], model_feature features[MODEL_FEATURES])
{
    static int32_t z[MODEL_FFT];
    int32_t logs[MODEL_BANDS];
    model_transform(samples, z);
    model_bands(z, logs);
    model_finish(logs, features);
}
