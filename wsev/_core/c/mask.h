/* Masking (RFC 6455 section 5.3): a payload XORed with its masking key; masking twice restores it. */

#ifndef WSEV_MASK_H
#define WSEV_MASK_H

#include <stddef.h>
#include <stdint.h>

/* Write the size bytes at src, XORed with the masking key, to dst.  offset is that of src[0] in its frame's payload.
   No byte outside of the two areas is read or written; they are the same one, or do not overlap; any alignment.
   Returns whether any byte written has its high bit set: a text of which none has is ASCII. */
int mask_bytes(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t key[4], size_t offset);

/* Use what this processor has beyond its baseline.  Called once, at import; before it, mask_bytes is right but slower. */
void mask_choose(void);

#endif
