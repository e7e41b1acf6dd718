/* Messages of permessage-deflate (RFC 7692), with zlib; without it (-DWITH_LIBRARIES is missing) none can be had. */

#ifndef LOADGEN_DEFLATE_H
#define LOADGEN_DEFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most bytes that a compressed message of so many may have. */
size_t deflate_bound(size_t size);

/* Compress a message by itself, so that any context of the server's will do; its size. */
size_t deflate_message(const uint8_t *message, size_t size, uint8_t *compressed);

/* What inflates the messages of one connection. */
typedef struct inflater inflater_t;

inflater_t *inflater_new(void);
void inflater_free(inflater_t *inflater);

/* Forget the context, before the message that comes next. */
void inflater_reset(inflater_t *inflater);

/* Inflate a whole message, which has room for four bytes behind it; its size, or -1 if it is broken or does not fit. */
ptrdiff_t inflate_message(inflater_t *inflater, uint8_t *compressed, size_t size, uint8_t *message, size_t capacity);

#endif
