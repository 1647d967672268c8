/* How a kernel moves over a picture of height x width x channels. */
typedef struct {
    int16_t height, width, channels;
    int16_t out_height, out_width;
    int16_t kernel_height, kernel_width, stride_height, stride_width;
    int16_t pad_top, pad_left;
} model_window;
