#include "buffer.h"

#include <stdlib.h>
#include <string.h>

uint8_t *buffer_reserve(buffer_t *buffer, size_t size)
{
    size_t needed = buffer->size + size;
    if (buffer->start && buffer->start + needed > buffer->capacity) {
        memmove(buffer->base, buffer_data(buffer), buffer->size);
        buffer->start = 0;
    }
    if (needed > buffer->capacity) {
        buffer->base = realloc(buffer->base, needed);
        if (!buffer->base) abort();
        buffer->capacity = needed;
    }
    return buffer_data(buffer) + buffer->size;
}

void buffer_add(buffer_t *buffer, const uint8_t *data, size_t size)
{
    /* Twice as much, so that adding many small pieces does not move all of it each time. */
    uint8_t *end = buffer->start + buffer->size + size > buffer->capacity
        ? buffer_reserve(buffer, buffer->size + 2 * size) : buffer_data(buffer) + buffer->size;
    memcpy(end, data, size);
    buffer->size += size;
}

void buffer_take(buffer_t *buffer, size_t size)
{
    buffer->start += size;
    buffer->size -= size;
    if (!buffer->size) buffer_free(buffer);
}

void buffer_free(buffer_t *buffer)
{
    free(buffer->base);
    *buffer = (buffer_t){ 0 };
}
