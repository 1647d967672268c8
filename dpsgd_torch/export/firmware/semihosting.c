/* Reads inputs from in.bin, writes outputs to out.bin, ticks and stack to counts.bin. */
#include "memory.h"
#include "model.h"
#include "timer.h"

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT = 0x18 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

static int8_t input[MODEL_INPUT_SIZE] __attribute__((aligned(4)));
static int8_t output[MODEL_OUTPUT_SIZE] __attribute__((aligned(4)));

static uintptr_t call(uintptr_t operation, uintptr_t argument)
{
#if defined(__riscv)
    register uintptr_t a0 __asm__("a0") = operation;
    register uintptr_t a1 __asm__("a1") = argument;
    __asm__ volatile(".option push\n\t.option norvc\n\t.balign 16\n\t"
                     "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
#else
    register uintptr_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

static uintptr_t transfer(uintptr_t operation, uintptr_t a, uintptr_t b, uintptr_t c)
{
    const uintptr_t block[3] = {a, b, c};
    return call(operation, (uintptr_t)block);
}

int main(void)
{
    const uintptr_t in = transfer(SYS_OPEN, (uintptr_t) "in.bin", READ_BINARY, 6);
    const uintptr_t out = transfer(SYS_OPEN, (uintptr_t) "out.bin", WRITE_BINARY, 7);
    const uintptr_t notes = transfer(SYS_OPEN, (uintptr_t) "counts.bin", WRITE_BINARY, 10);
    const uint32_t *unused = firmware_bss_end;
    uint32_t ticks[2] = {0, 0}, stack;
    firmware_timer_start();
    while (transfer(SYS_READ, in, (uintptr_t)input, MODEL_INPUT_SIZE) == 0) {
        const uint32_t before = firmware_timer();
        uint32_t elapsed;
        model_invoke(input, output);
        elapsed = firmware_elapsed(before, firmware_timer());
        ticks[0] += elapsed;
        ticks[1] += ticks[0] < elapsed;
        transfer(SYS_WRITE, out, (uintptr_t)output, MODEL_OUTPUT_SIZE);
    }
    while (*unused == FIRMWARE_PAINT) {
        ++unused;
    }
    stack = (uint32_t)((uintptr_t)firmware_stack_top - (uintptr_t)unused);
    transfer(SYS_WRITE, notes, (uintptr_t)ticks, sizeof ticks);
    transfer(SYS_WRITE, notes, (uintptr_t)&stack, sizeof stack);
    call(SYS_EXIT, APPLICATION_EXIT);
    return 0;
}
