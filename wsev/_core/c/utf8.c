/* The table of RFC 3629 section 4, as the lead byte and the range of the byte behind it. */

#include "utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* What must follow a lead byte from C2 to F4; false for any other byte from 80 on. */
static inline bool
begin(uint8_t lead, utf8_state *state)
{
    state->low = 0x80;
    state->high = 0xBF;
    if (lead < 0xC2) /* a continuation byte, or C0 and C1: overlong */
        return false;
    if (lead < 0xE0) {
        state->missing = 1;
    } else if (lead < 0xF0) {
        state->missing = 2;
        if (lead == 0xE0) /* overlong below */
            state->low = 0xA0;
        else if (lead == 0xED) /* surrogates above */
            state->high = 0x9F;
    } else if (lead < 0xF5) {
        state->missing = 3;
        if (lead == 0xF0) /* overlong below */
            state->low = 0x90;
        else if (lead == 0xF4) /* above U+10FFFF */
            state->high = 0x8F;
    } else {
        return false;
    }
    return true;
}

/* The first byte from data on that is not ASCII, or end. */
static inline const uint8_t *
skip_ascii(const uint8_t *data, const uint8_t *end)
{
    uint64_t words[4];
    while (end - data >= 32) {
        memcpy(words, data, 32);
        if ((words[0] | words[1] | words[2] | words[3]) & HIGH_BITS)
            break;
        data += 32;
    }
    while (data < end && *data < 0x80)
        data++;
    return data;
}

bool
utf8_feed(utf8_state *state, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    utf8_state here = *state;
    while (data < end) {
        if (here.missing == 0) {
            if (*data < 0x80) {
                data = skip_ascii(data + 1, end);
                continue;
            }
            if (!begin(*data++, &here))
                return false;
        }
        while (here.missing > 0 && data < end) {
            if (*data < here.low || *data > here.high)
                return false;
            data++;
            here.missing--;
            here.low = 0x80;
            here.high = 0xBF;
        }
    }
    *state = here;
    return true;
}
