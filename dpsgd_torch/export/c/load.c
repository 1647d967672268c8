#if defined(__ARM_FEATURE_UNALIGNED)
/* Four bytes at any address. */
typedef struct __attribute__((packed, may_alias)) {
    uint32_t word;
} model_word;

static inline uint32_t model_load(const void *bytes)
{
    return ((const model_word *)bytes)->word;
}
#endif
