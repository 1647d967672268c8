/* Each model in turn: a count of inputs and the inputs from stdin, the outputs to stdout. */
#include <stdio.h>
#include <stdlib.h>

@INCLUDES@

typedef void (*invoke_function)(const int8_t *, int8_t *);

static const struct {
    invoke_function invoke;
    size_t input_size, output_size;
} models[] = {@MODELS@};

int main(void)
{
    size_t i;
    for (i = 0; i < sizeof models / sizeof models[0]; ++i) {
        /* odd addresses, exact ends: a sanitizer sees a careless cast and a byte too many */
        int8_t *input_block = malloc(models[i].input_size + 1);
        int8_t *output_block = malloc(models[i].output_size + 1);
        int8_t *input = input_block + 1, *output = output_block + 1;
        uint32_t count;
        if (!input_block || !output_block || fread(&count, sizeof count, 1, stdin) != 1) {
            return 1;
        }
        for (; count > 0; --count) {
            if (fread(input, 1, models[i].input_size, stdin) != models[i].input_size) {
                return 1;
            }
            models[i].invoke(input, output);
            if (fwrite(output, 1, models[i].output_size, stdout) != models[i].output_size) {
                return 1;
            }
        }
        free(input_block);
        free(output_block);
    }
    return 0;
}
