#include <math.h>

#include "model.h"

#define REV2 0 /* 1 for the Nano 33 BLE Sense Rev2, whose sensor is another one */

#if REV2
#include <Arduino_BMI270_BMM150.h>
#else
#include <Arduino_LSM9DS1.h>
#endif

static const float THRESHOLD = 2.5f; /* g, |x| + |y| + |z|: a movement begins */
static const float ACCELERATION = 4.0f; /* g, and degrees a second: the range of the sensor */
static const float ROTATION = 2000.0f;
static const int AXES = 6;
static const int SAMPLES = MODEL_INPUT_SIZE / AXES;

static const char *const labels[] = MODEL_LABELS;
static int8_t input[MODEL_INPUT_SIZE];
static int8_t output[MODEL_OUTPUT_SIZE];

static int8_t quantize(float value, float range)
{
    const float part = (value + range) / (2.0f * range);
    const float real = INPUT_LOW + (INPUT_HIGH - INPUT_LOW) * part;
    const long q = lroundf(real / MODEL_INPUT_SCALE) + MODEL_INPUT_ZERO_POINT;
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

static float real_output(int8_t value)
{
    return MODEL_OUTPUT_SCALE * (float)(value - MODEL_OUTPUT_ZERO_POINT);
}

static float probability(int which)
{
#if OUTPUT_IS_PROBABILITIES
    return real_output(output[which]);
#else
    float sum = 0.0f;
    for (int i = 0; i < MODEL_OUTPUT_SIZE; ++i) {
        sum += expf(real_output(output[i]) - real_output(output[which]));
    }
    return 1.0f / sum;
#endif
}

void setup()
{
    Serial.begin(9600);
    while (!Serial) {
    }
    if (!IMU.begin()) {
        Serial.println("no motion sensor found; for the Rev2 board set REV2 to 1");
        while (true) {
        }
    }
    Serial.println("move!");
}

void loop()
{
    float x, y, z;
    if (!IMU.accelerationAvailable()) {
        return;
    }
    IMU.readAcceleration(x, y, z);
    if (fabsf(x) + fabsf(y) + fabsf(z) < THRESHOLD) {
        return;
    }
    for (int taken = 0; taken < SAMPLES;) {
        if (!IMU.accelerationAvailable() || !IMU.gyroscopeAvailable()) {
            continue;
        }
        int8_t *row = input + AXES * taken++;
        IMU.readAcceleration(x, y, z);
        row[0] = quantize(x, ACCELERATION);
        row[1] = quantize(y, ACCELERATION);
        row[2] = quantize(z, ACCELERATION);
        IMU.readGyroscope(x, y, z);
        row[3] = quantize(x, ROTATION);
        row[4] = quantize(y, ROTATION);
        row[5] = quantize(z, ROTATION);
    }
    model_invoke(input, output);
    int best = 0;
    for (int i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    Serial.print(labels[best]);
    Serial.print(" ");
    Serial.println(probability(best), 3);
}
