/* How the sum of a channel becomes a value. */
typedef struct {
    int32_t bias; /* less the input's zero point times the weights */
    int32_t multiplier;
    int32_t down; /* the shift to the right that follows */
} model_channel;
