/* Inputs and outputs are put in and taken out by the emulator, at firmware_exchange. */
#include "memory.h"
#include "model.h"

int8_t firmware_input[MODEL_INPUT_SIZE];
int8_t firmware_output[MODEL_OUTPUT_SIZE];

__attribute__((noinline)) void firmware_exchange(void)
{
    __asm__ volatile("nop" ::: "memory");
}

int main(void)
{
    for (;;) {
        firmware_exchange();
        model_invoke(firmware_input, firmware_output);
    }
}
