#include <PDM.h>

#include "model_stream.h"

static const uint32_t WAITING = 4096; /* samples, a power of two: what comes in during an answer */
static const int BLOCK = 256; /* samples that the microphone hands over at once, at most */

static const char *const labels[] = MODEL_LABELS;
static int8_t output[MODEL_OUTPUT_SIZE];
static int16_t waiting[WAITING];
static volatile uint32_t written, taken, lost;
static unsigned long busy, samples; /* since the last answer: microseconds, and samples */

/* Called by the microphone while everything else goes on. */
static void listen()
{
    int16_t block[BLOCK];
    const int ready = PDM.available();
    const int count = PDM.read(block, ready < 2 * BLOCK ? ready : 2 * BLOCK) / 2;
    for (int i = 0; i < count; ++i) {
        if (written - taken == WAITING) {
            lost = lost + 1;
        } else {
            waiting[written % WAITING] = block[i];
            written = written + 1;
        }
    }
}

void setup()
{
    Serial.begin(115200);
    while (!Serial) {
    }
    PDM.onReceive(listen);
    if (!PDM.begin(1, SOUND_RATE)) {
        Serial.println("no microphone found");
        while (true) {
        }
    }
    Serial.println("listening!");
}

void loop()
{
    const uint32_t from = taken % WAITING;
    uint32_t count = written - taken;
    count = count > WAITING - from ? WAITING - from : count;
    count = count > MODEL_EVERY ? MODEL_EVERY : count;
    if (count == 0) {
        return;
    }
    const unsigned long before = micros();
    const bool answered = model_push(waiting + from, count, output) > 0;
    busy += micros() - before;
    taken = taken + count;
    samples += count;
    if (lost > 0) {
        Serial.println("too slow: samples were lost");
        model_forget();
        noInterrupts();
        taken = written;
        lost = 0;
        interrupts();
        busy = samples = 0;
        return;
    }
    if (!answered) {
        return;
    }
    int best = 0;
    for (int i = 1; i < MODEL_OUTPUT_SIZE; ++i) {
        best = output[i] > output[best] ? i : best;
    }
    const long period = (long)((float)samples * (1000000.0f / SOUND_RATE));
    Serial.print(labels[best]);
    Serial.print("; us left of ");
    Serial.print(period);
    Serial.print(": ");
    Serial.println(period - (long)busy);
    busy = samples = 0;
}
