/* A counter that advances with the emulated time, in which an instruction takes a nanosecond. */
#ifndef FIRMWARE_TIMER_H
#define FIRMWARE_TIMER_H

#include <stdint.h>

#define FIRMWARE_REGISTER(address) (*(volatile uint32_t *)(address))

#if defined(FIRMWARE_SYSTICK)
static inline void firmware_timer_start(void)
{
    FIRMWARE_REGISTER(0xE000E014u) = 0xFFFFFFu;
    FIRMWARE_REGISTER(0xE000E018u) = 0;
    FIRMWARE_REGISTER(0xE000E010u) = 5;
}

static inline uint32_t firmware_timer(void)
{
    return FIRMWARE_REGISTER(0xE000E018u);
}

static inline uint32_t firmware_elapsed(uint32_t before, uint32_t after)
{
    return (before - after) & 0xFFFFFFu;
}
#elif defined(FIRMWARE_NRF51_TIMER)
static inline void firmware_timer_start(void)
{
    FIRMWARE_REGISTER(0x40008508u) = 3; /* 32 bits */
    FIRMWARE_REGISTER(0x40008510u) = 0; /* 16 MHz */
    FIRMWARE_REGISTER(0x40008000u) = 1;
}

static inline uint32_t firmware_timer(void)
{
    FIRMWARE_REGISTER(0x40008040u) = 1; /* capture */
    return FIRMWARE_REGISTER(0x40008540u);
}

static inline uint32_t firmware_elapsed(uint32_t before, uint32_t after)
{
    return after - before;
}
#else /* RISC-V: instructions retired */
static inline void firmware_timer_start(void)
{
}

static inline uint32_t firmware_timer(void)
{
    uint32_t count;
    __asm__ volatile("csrr %0, minstret" : "=r"(count));
    return count;
}

static inline uint32_t firmware_elapsed(uint32_t before, uint32_t after)
{
    return after - before;
}
#endif

#endif
