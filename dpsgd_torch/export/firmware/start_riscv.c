/* RISC-V: reset. */
#include "memory.h"

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
