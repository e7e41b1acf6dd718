/* libFuzzer: utf8_feed, in pieces, against a decoder that looks at code points as numbers. */

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

/* How many bytes the code point at data takes; 0: it is none; -1: it may become one with more bytes. */
static int
code_point(const uint8_t *data, size_t size)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    int length = data[0] < 0x80 ? 1 : data[0] >> 5 == 6 ? 2 : data[0] >> 4 == 14 ? 3 : data[0] >> 3 == 30 ? 4 : 0;
    if (length < 2)
        return length;
    uint32_t lowest = data[0] & (0xFF >> (length + 1)), highest = lowest;
    for (int i = 1; i < length; i++) {
        if ((size_t)i < size && data[i] >> 6 != 2)
            return 0;
        lowest = lowest << 6 | ((size_t)i < size ? data[i] & 0x3F : 0);
        highest = highest << 6 | ((size_t)i < size ? data[i] & 0x3F : 0x3F);
    }
    /* Some code point from lowest to highest must be allowed: RFC 3629 section 3. */
    if (highest < least[length] || lowest > 0x10FFFF || (lowest >= 0xD800 && highest <= 0xDFFF))
        return 0;
    return (size_t)length <= size ? length : -1;
}

/* The input: where it is cut (two times two bytes), then the text. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    size_t cuts[2] = {(size_t)data[0] << 8 | data[1], (size_t)data[2] << 8 | data[3]};
    data += 4;
    size -= 4;

    size_t at = 0;
    int length = 1;
    while (at < size && (length = code_point(data + at, size - at)) > 0)
        at += (size_t)length;
    int valid = at == size || length < 0, whole = at == size;

    utf8_state state;
    memset(&state, 0, sizeof(state));
    int fed = 1;
    size_t begin = 0;
    for (int i = 0; i < 3 && fed; i++) {
        size_t end = i < 2 && size > 0 ? begin + cuts[i] % (size - begin + 1) : size;
        uint8_t *piece = malloc(end > begin ? end - begin : 1); /* exactly so many: a byte too many is a report */
        memcpy(piece, data + begin, end - begin);
        fed = utf8_feed(&state, piece, end - begin);
        free(piece);
        begin = end;
    }
    if (fed != valid || (fed && (state.missing == 0) != whole))
        abort();
    return 0;
}
