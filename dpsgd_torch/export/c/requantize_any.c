/* sum * multiplier / 2^(31 + down), down of either sign: rounded twice, as TensorFlow Lite Micro
 * does. */
#define MODEL_ONLY_DOWN 0
static inline int32_t model_requantize(int32_t sum, int32_t multiplier, int32_t down)
{
    if (down >= 0) {
        return model_divide(model_high_product(sum, multiplier), down);
    }
    return model_high_product(model_shift_left(sum, -down), multiplier);
}
