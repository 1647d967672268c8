static inline int32_t model_larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}
