static void model_copy(int8_t *to, const int8_t *from, int32_t bytes)
{
#if MODEL_MVE
    for (; bytes >= 16; bytes -= 16, to += 16, from += 16) {
        vstrbq_s8(to, vldrbq_s8(from));
    }
#endif
#if defined(__ARM_FEATURE_UNALIGNED)
    for (; bytes >= 4; bytes -= 4, to += 4, from += 4) {
        model_store(to, model_load(from));
    }
#endif
    for (; bytes > 0; --bytes) {
        *to++ = *from++;
    }
}
