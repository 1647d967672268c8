#include "model_stream.h"

static unsigned long busy, rows; /* since the last answer: microseconds, and samples */

void loop()
{
    float x, y, z;
    int8_t row[AXES];
    if (!IMU.accelerationAvailable() || !IMU.gyroscopeAvailable()) {
        return;
    }
    const unsigned long before = micros();
    IMU.readAcceleration(x, y, z);
    row[0] = quantize(x, ACCELERATION);
    row[1] = quantize(y, ACCELERATION);
    row[2] = quantize(z, ACCELERATION);
    IMU.readGyroscope(x, y, z);
    row[3] = quantize(x, ROTATION);
    row[4] = quantize(y, ROTATION);
    row[5] = quantize(z, ROTATION);
    const bool answered = model_push(row, 1, output) > 0;
    busy += micros() - before;
    ++rows;
    if (!answered) {
        return;
    }
    int best = 0;
    for (int i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    const long period = (long)(1000000.0f / IMU.accelerationSampleRate() * (float)rows);
    Serial.print(labels[best]);
    Serial.print(" ");
    Serial.print(probability(best), 3);
    Serial.print("; us left of ");
    Serial.print(period);
    Serial.print(": ");
    Serial.println(period - (long)busy);
    busy = rows = 0;
}
