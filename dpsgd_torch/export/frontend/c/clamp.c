static inline model_feature model_clamp(int32_t value)
{
    return (model_feature)(value < MODEL_LEAST ? MODEL_LEAST
                                               : value > MODEL_GREATEST ? MODEL_GREATEST : value);
}
