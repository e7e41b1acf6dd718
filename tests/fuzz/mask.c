/* libFuzzer: mask_bytes against one byte after the other, on areas of exactly the size, at every alignment.
   With BASELINE in the environment by what every processor has, else by what this one has. */

#include "mask.h"

#include <stdlib.h>
#include <string.h>

static void
check(const uint8_t *payload, size_t size, const uint8_t *key, size_t offset, size_t from, size_t to)
{
    /* The payload ends where its area ends, so that a byte too many, read or written, is a report. */
    uint8_t *src_area = malloc(from + size), *dst_area = malloc(to + size);
    if (src_area == NULL || dst_area == NULL) { /* of no bytes at all */
        free(src_area);
        free(dst_area);
        return;
    }
    uint8_t *src = src_area + from, *dst = dst_area + to;
    memcpy(src, payload, size);
    int high = mask_bytes(dst, src, size, key, offset);

    uint8_t seen = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t expected = payload[i] ^ key[(offset + i) & 3];
        seen |= expected;
        if (dst[i] != expected)
            abort();
    }
    if ((high != 0) != (seen >= 0x80))
        abort();

    if (mask_bytes(src, src, size, key, offset) != high || memcmp(src, dst, size) != 0)
        abort(); /* in place */
    free(src_area);
    free(dst_area);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (getenv("BASELINE") == NULL)
        mask_choose();
    return 0;
}

/* The input: alignment of source and target, offset (two bytes), key, payload. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    check(data + 8, size - 8, data + 4, (size_t)data[2] << 8 | data[3], data[0] & 63, data[1] & 63);
    return 0;
}
