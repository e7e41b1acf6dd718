/* Bytes that a connection keeps: the rest of an unfinished frame, or what the kernel did not take.
   Taken from the front, added at the end; freed whenever it is empty. */

#ifndef BARE_BUFFER_H
#define BARE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *base;
    size_t start; /* of what is kept, from base */
    size_t size;
    size_t capacity;
} buffer_t;

static inline uint8_t *buffer_data(const buffer_t *buffer) { return buffer->base + buffer->start; }

/* Make room for so many bytes behind what is kept; where they may be written. */
uint8_t *buffer_reserve(buffer_t *buffer, size_t size);

void buffer_add(buffer_t *buffer, const uint8_t *data, size_t size);
void buffer_take(buffer_t *buffer, size_t size);
void buffer_free(buffer_t *buffer);

#endif
