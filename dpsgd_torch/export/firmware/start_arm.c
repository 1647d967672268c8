/* Cortex-M: vector table and reset. */
#include "memory.h"

void firmware_reset(void);

static void firmware_hang(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) void (*const firmware_vectors[16])(void) = {
    (void (*)(void))firmware_stack_top,
    firmware_reset,
    firmware_hang,
    firmware_hang,
    firmware_hang,
    firmware_hang,
    firmware_hang,
};

__attribute__((used)) void firmware_reset(void)
{
    uint32_t *stack;
#if FIRMWARE_FPU
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: floating point and MVE */
    __asm__ volatile("dsb\n\tisb");
#endif
    __asm__ volatile("mov %0, sp" : "=r"(stack));
    firmware_prepare(stack);
    main();
    firmware_hang();
}
