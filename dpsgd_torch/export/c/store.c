#if defined(__ARM_FEATURE_UNALIGNED)
static inline void model_store(void *bytes, uint32_t word)
{
    ((model_word *)bytes)->word = word;
}
#endif
