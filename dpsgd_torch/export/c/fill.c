static void model_fill(int8_t *to, int32_t value, int32_t bytes)
{
    for (; bytes > 0; --bytes) {
        *to++ = (int8_t)value;
    }
}
