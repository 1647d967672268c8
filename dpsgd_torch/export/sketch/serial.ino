#include <math.h>

#include "model.h"

/* Send the bytes of one input, 0 ... 255 from its least value to its greatest, last axis fastest. */
static int8_t input[MODEL_INPUT_SIZE];
static int8_t output[MODEL_OUTPUT_SIZE];
static const char *const labels[] = MODEL_LABELS;

static int8_t quantize(int byte)
{
    const float value = INPUT_LOW + (INPUT_HIGH - INPUT_LOW) * ((float)byte / 255.0f);
    const long q = lroundf(value / MODEL_INPUT_SCALE) + MODEL_INPUT_ZERO_POINT;
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

void setup()
{
    Serial.begin(115200);
    while (!Serial) {
    }
}

void loop()
{
    for (int i = 0; i < MODEL_INPUT_SIZE;) {
        const int byte = Serial.read();
        if (byte >= 0) {
            input[i++] = quantize(byte);
        }
    }
    model_invoke(input, output);
    int best = 0;
    for (int i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    Serial.println(labels[best]);
}
