/* RISC-V: reset. */
#include "memory.h"

#include <stddef.h>

/* Compilers call these by themselves, and there is no C library here. */
__attribute__((used)) void *memset(void *to, int value, size_t count)
{
    volatile unsigned char *byte = to;
    for (; count > 0; --count) {
        *byte++ = (unsigned char)value;
    }
    return to;
}

__attribute__((used)) void *memcpy(void *to, const void *from, size_t count)
{
    volatile unsigned char *byte = to;
    const unsigned char *next = from;
    for (; count > 0; --count) {
        *byte++ = *next++;
    }
    return to;
}

__attribute__((used)) void firmware_start(void)
{
    uint32_t *stack;
    __asm__ volatile("mv %0, sp" : "=r"(stack));
    firmware_prepare(stack);
    main();
    for (;;) {
    }
}

__attribute__((section(".vectors"), naked, used)) void firmware_reset(void)
{
    __asm__ volatile("la sp, firmware_stack_top\n\tj firmware_start");
}
