/* The opening handshake of RFC 6455 section 4.2, as far as a well-behaved client needs it. */

#ifndef BARE_HANDSHAKE_H
#define BARE_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>

#define ANSWER_SIZE 192

/* Bytes of the request at data, whose answer is written then; 0 if it is not complete; -1 if it is not one. */
ptrdiff_t handshake_answer(const uint8_t *data, size_t size, char answer[ANSWER_SIZE]);

#endif
