#if MODEL_DSP
/* The larger of each of four bytes. */
static inline uint32_t model_larger_bytes(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}
#endif

static void model_keep_larger(int8_t *kept, const int8_t *other, int32_t bytes)
{
#if MODEL_MVE
    for (; bytes >= 16; bytes -= 16, kept += 16, other += 16) {
        vstrbq_s8(kept, vmaxq_s8(vldrbq_s8(kept), vldrbq_s8(other)));
    }
#endif
#if MODEL_DSP
    for (; bytes >= 4; bytes -= 4, kept += 4, other += 4) {
        model_store(kept, model_larger_bytes(model_load(kept), model_load(other)));
    }
#endif
    for (; bytes > 0; --bytes, ++kept, ++other) {
        if (*other > *kept) {
            *kept = *other;
        }
    }
}
