/* libFuzzer: mask_bytes against one byte after the other, on areas of exactly the size, at every alignment. */

#include "mask.h"

#include <stdlib.h>
#include <string.h>

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    mask_choose();
    return 0;
}

/* The input: alignment of source and target, offset, key, payload. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 7)
        return 0;
    size_t from = data[0] & 63, to = data[1] & 63, offset = data[2];
    const uint8_t *key = data + 3, *payload = data + 7;
    size -= 7;

    /* What is right of the payload ends where the area ends, so that a byte too many is a report. */
    uint8_t *src_area = malloc(from + size + 1), *dst_area = malloc(to + size + 1);
    uint8_t *src = src_area + from, *dst = dst_area + to;
    memcpy(src, payload, size);
    src[size] = 0x55;
    dst[size] = 0xAA;
    int high = mask_bytes(dst, src, size, key, offset);

    uint8_t seen = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t expected = payload[i] ^ key[(offset + i) & 3];
        seen |= expected;
        if (dst[i] != expected)
            abort();
    }
    if ((high != 0) != (seen >= 0x80) || dst[size] != 0xAA || src[size] != 0x55)
        abort();

    if (mask_bytes(src, src, size, key, offset) != high || memcmp(src, dst, size) != 0)
        abort(); /* in place */
    free(src_area);
    free(dst_area);
    return 0;
}
