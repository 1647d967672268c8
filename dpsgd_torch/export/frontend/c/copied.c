static float stream_error;

/* The mean squared error of a copy. */
static void stream_compare(const int8_t *window, const int8_t *copy)
{
    float sum = 0.0f;
    uint32_t i;
    for (i = 0; i < MODEL_INPUT_SIZE; ++i) {
        const float heard = MODEL_INPUT_SCALE * (float)(window[i] - MODEL_INPUT_ZERO_POINT);
        const float said = MODEL_OUTPUT_SCALE * (float)(copy[i] - MODEL_OUTPUT_ZERO_POINT);
        sum += (heard - said) * (heard - said);
    }
    stream_error = sum / (float)MODEL_INPUT_SIZE;
}

float model_error(void)
{
    return stream_error;
}
