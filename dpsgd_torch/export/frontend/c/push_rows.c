uint32_t model_push(const int8_t *samples, uint32_t count, int8_t output[MODEL_OUTPUT_SIZE])
{
    uint32_t answers = 0;
    for (; count > 0; --count) {
        uint32_t i;
        for (i = 0; i < MODEL_CHANNELS; ++i) {
            stream_window[stream_filled++] = *samples++;
        }
        answers += stream_answer(output);
    }
    return answers;
}

void model_forget(void)
{
    stream_filled = 0;
}
