/* What compilers call on a Cortex-M0+, where there is no C library: it multiplies 32 bits to 32 and
   does not divide. */
#include <stdint.h>

/* In assembly, for a compiler would see a multiplication in the C for it, and call it. */
__attribute__((naked, used)) void __aeabi_lmul(void)
{
    __asm__ volatile(
        "push {r4, r5, r6, lr}\n\t"
        "muls r1, r2, r1\n\t" /* high a, low b */
        "muls r3, r0, r3\n\t" /* low a, high b */
        "adds r1, r1, r3\n\t"
        "lsrs r3, r0, #16\n\t"
        "lsrs r4, r2, #16\n\t"
        "uxth r5, r0\n\t"
        "uxth r6, r2\n\t"
        "muls r0, r2, r0\n\t" /* the low word */
        "movs r2, r5\n\t"
        "muls r2, r6, r2\n\t"
        "lsrs r2, r2, #16\n\t"
        "muls r6, r3, r6\n\t"
        "adds r2, r2, r6\n\t"
        "muls r3, r4, r3\n\t"
        "muls r4, r5, r4\n\t"
        "uxth r5, r2\n\t"
        "lsrs r2, r2, #16\n\t"
        "adds r4, r4, r5\n\t"
        "lsrs r4, r4, #16\n\t"
        "adds r1, r1, r2\n\t"
        "adds r1, r1, r4\n\t"
        "adds r1, r1, r3\n\t"
        "pop {r4, r5, r6, pc}");
}

__attribute__((used)) uint32_t __aeabi_uidiv(uint32_t a, uint32_t b)
{
    uint32_t quotient = 0, rest = 0;
    int bit;
    for (bit = 31; bit >= 0; --bit) {
        rest = rest << 1 | (a >> bit & 1u);
        if (rest >= b) {
            rest -= b;
            quotient |= 1u << bit;
        }
    }
    return quotient;
}

__attribute__((used)) int32_t __aeabi_idiv(int32_t a, int32_t b)
{
    const uint32_t size_a = a < 0 ? 0u - (uint32_t)a : (uint32_t)a;
    const uint32_t size_b = b < 0 ? 0u - (uint32_t)b : (uint32_t)b;
    const uint32_t size = __aeabi_uidiv(size_a, size_b);
    return (int32_t)((a < 0) != (b < 0) ? 0u - size : size);
}

__attribute__((used)) uint64_t __aeabi_llsl(uint64_t a, int by)
{
    const uint32_t low = (uint32_t)a, high = (uint32_t)(a >> 32);
    if (by == 0) {
        return a;
    }
    if (by >= 32) {
        return (uint64_t)(low << (by - 32)) << 32;
    }
    return (uint64_t)(high << by | low >> (32 - by)) << 32 | low << by;
}

__attribute__((used)) int64_t __aeabi_lasr(int64_t a, int by)
{
    const uint32_t low = (uint32_t)a;
    const int32_t high = (int32_t)(a >> 32);
    if (by == 0) {
        return a;
    }
    if (by >= 32) {
        return high >> (by - 32);
    }
    return (int64_t)(high >> by) << 32 | (low >> by | (uint32_t)high << (32 - by));
}

__attribute__((used)) uint64_t __aeabi_llsr(uint64_t a, int by)
{
    const uint32_t low = (uint32_t)a, high = (uint32_t)(a >> 32);
    if (by == 0) {
        return a;
    }
    if (by >= 32) {
        return high >> (by - 32);
    }
    return (uint64_t)(high >> by) << 32 | (low >> by | high << (32 - by));
}
