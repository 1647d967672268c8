#include <stdint.h>
#include <stdio.h>

#include "model.h"

static const char *const labels[] = MODEL_LABELS;
static int8_t input[MODEL_INPUT_SIZE];
static int8_t output[MODEL_OUTPUT_SIZE];

/* Put your sensor here: value i of one input, last axis fastest. As it is, a ramp over the range. */
static float sensor(long i)
{
    return INPUT_LOW + (INPUT_HIGH - INPUT_LOW) * ((float)i / (float)MODEL_INPUT_SIZE);
}

static int8_t quantize(float value)
{
    const float scaled = value / MODEL_INPUT_SCALE;
    const long q = (long)(scaled + (scaled < 0.0f ? -0.5f : 0.5f)) + MODEL_INPUT_ZERO_POINT;
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

static void classify(void)
{
    for (long i = 0; i < MODEL_INPUT_SIZE; ++i) {
        input[i] = quantize(sensor(i));
    }
    model_invoke(input, output);
    long best = 0;
    for (long i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    printf("%s\n", labels[best]);
}

#ifdef ESP_PLATFORM
void app_main(void);
void app_main(void)
{
    classify();
}
#else
int main(void)
{
    classify();
    return 0;
}
#endif
