/* UTF-8 (RFC 3629), validated as it arrives. */

#ifndef WSEV_UTF8_H
#define WSEV_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the bytes so far stop.  All zero: at the end of a code point, as before the first byte. */
typedef struct {
    uint8_t missing; /* continuation bytes that the code point still needs */
    uint8_t low;     /* while there are any: the least and greatest value that the next one may have */
    uint8_t high;
} utf8_state;

/* Whether data may follow what *state stands for; *state then stands for the end of data.
   False at the first byte with which no valid text continues (after ED, A0 is such a byte); *state is then void. */
bool utf8_feed(utf8_state *state, const uint8_t *data, size_t size);

#endif
