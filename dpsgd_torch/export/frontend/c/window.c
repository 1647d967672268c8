static int8_t stream_window[MODEL_INPUT_SIZE];
static uint32_t stream_filled; /* bytes */

/* Reads the window if it is full, and lets its oldest rows go: how many answers that makes. */
static uint32_t stream_answer(int8_t *output)
{
    uint32_t i;
    if (stream_filled < MODEL_INPUT_SIZE) {
        return 0;
    }
    model_invoke(stream_window, output);
    stream_filled = MODEL_INPUT_SIZE - MODEL_LEAVING;
    for (i = 0; i < stream_filled; ++i) {
        stream_window[i] = stream_window[i + MODEL_LEAVING];
    }
    return 1;
}
