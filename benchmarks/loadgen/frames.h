/* Frames of a client (RFC 6455 section 5), made before the load, and what their payloads must be when they come back.
   A payload is an 8-byte tag in hexadecimal digits, which no other message under way has, then a pattern: all ASCII.
   The pattern is of letters, or with --compressed JSON. */

#ifndef LOADGEN_FRAMES_H
#define LOADGEN_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAG_SIZE 8
#define MAX_HEADER 14 /* bytes, with the masking key */

#define RSV1 0x40 /* of the first byte: the message is compressed */

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* Read `options`; once, before all else here. */
void frames_prepare(void);

/* The most bytes of one message frame, header included. */
size_t frame_capacity(void);

uint64_t make_tag(unsigned high, unsigned low);

/* Write a message frame; its size, at most frame_capacity(). */
size_t write_message(uint8_t *frame, uint64_t tag);

/* Write a control frame with a payload of at most 125 bytes; its size. */
size_t write_control(uint8_t *frame, int opcode, const uint8_t *payload, size_t size);

/* Whether these are the payload's bytes from offset on. */
bool is_expected(uint64_t tag, uint64_t offset, const uint8_t *data, size_t size);

#endif
