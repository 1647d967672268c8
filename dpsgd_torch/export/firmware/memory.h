/* Places the linker knows. */
#ifndef FIRMWARE_MEMORY_H
#define FIRMWARE_MEMORY_H

#include <stdint.h>

extern uint32_t firmware_data[], firmware_data_end[], firmware_bss[], firmware_bss_end[];
extern uint32_t firmware_stack_top[];
extern const uint32_t firmware_data_in_flash[];

#define FIRMWARE_PAINT 0xA5A5A5A5u

/* Sets up RAM and paints the unused stack, so that its high-water mark can be read later. */
static inline void firmware_prepare(uint32_t *stack)
{
    const uint32_t *from = firmware_data_in_flash;
    uint32_t *to;
    for (to = firmware_data; to < firmware_data_end; ++to) {
        *(volatile uint32_t *)to = *from++;
    }
    for (; to < firmware_bss_end; ++to) {
        *(volatile uint32_t *)to = 0;
    }
    for (; to < stack; ++to) {
        *(volatile uint32_t *)to = FIRMWARE_PAINT;
    }
}

int main(void);

#endif
