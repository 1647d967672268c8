static int16_t stream_frame[SOUND_FRAME];
static uint32_t stream_heard; /* samples of the frame */

/* Features of a full frame, which then lets its oldest samples go. */
static uint32_t stream_hear(int8_t *output)
{
    uint32_t i;
    sound_features(stream_frame, stream_window + stream_filled);
    stream_filled += SOUND_FEATURES;
    stream_heard = SOUND_FRAME - SOUND_HOP;
    for (i = 0; i < stream_heard; ++i) {
        stream_frame[i] = stream_frame[i + SOUND_HOP];
    }
    return stream_answer(output);
}

uint32_t model_push(const int16_t *samples, uint32_t count, int8_t output[MODEL_OUTPUT_SIZE])
{
    uint32_t answers = 0;
    for (; count > 0; --count) {
        stream_frame[stream_heard++] = *samples++;
        if (stream_heard == SOUND_FRAME) {
            answers += stream_hear(output);
        }
    }
    return answers;
}

void model_forget(void)
{
    stream_filled = stream_heard = 0;
}
