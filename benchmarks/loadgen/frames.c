#include "frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deflate.h"
#include "options.h"

static uint8_t *pattern;
static uint8_t *message; /* while it is being compressed */

/* `kind` is an opcode, and RSV1 if need be. */
static size_t write_header(uint8_t *p, int kind, uint64_t size, const uint8_t key[4])
{
    size_t used = 2;
    p[0] = (uint8_t)(0x80 | kind);
    if (size < 126) {
        p[1] = (uint8_t)(0x80 | size);
    } else {
        int extra = size < 65536 ? 2 : 8;
        p[1] = 0x80 | (extra == 2 ? 126 : 127);
        for (int i = 0; i < extra; i++) p[used++] = (uint8_t)(size >> (8 * (extra - 1 - i)));
    }
    memcpy(p + used, key, 4);
    return used + 4;
}

static void write_letters(void)
{
    for (size_t i = 0; i < options.size; i++) pattern[i] = (uint8_t)('a' + (i * 7 + i / 26) % 26);
}

/* Records with the same names and other values, as a feed of prices has them. */
static void write_json(void)
{
    unsigned random = 1;
    for (size_t at = 0; at < options.size;) {
        char record[128];
        unsigned value[4];
        for (int i = 0; i < 4; i++) {
            random = random * 1664525u + 1013904223u;
            value[i] = random >> 16;
        }
        int size = snprintf(record, sizeof record,
                            "{\"symbol\":\"%c%c%c\",\"bid\":%u.%02u,\"ask\":%u.%02u,\"volume\":%u,\"at\":17000%05u},",
                            'A' + value[0] % 26, 'A' + value[1] % 26, 'A' + value[2] % 26, value[0] % 900, value[1] % 100,
                            value[0] % 900, value[2] % 100, value[3] * 10, value[1]);
        size_t part = options.size - at < (size_t)size ? options.size - at : (size_t)size;
        memcpy(pattern + at, record, part);
        at += part;
    }
}

void frames_prepare(void)
{
    pattern = malloc(options.size + 1);
    message = malloc(options.size + 1);
    if (!pattern || !message) die("out of memory");
    if (options.is_compressed) write_json();
    else write_letters();
}

size_t frame_capacity(void)
{
    return MAX_HEADER + (options.is_compressed ? deflate_bound(options.size) : options.size);
}

uint64_t make_tag(unsigned high, unsigned low)
{
    static const char digits[] = "0123456789abcdef";
    char text[TAG_SIZE];
    uint64_t tag;
    for (int i = 0; i < 4; i++) {
        text[i] = digits[high >> (12 - 4 * i) & 15];
        text[4 + i] = digits[low >> (12 - 4 * i) & 15];
    }
    memcpy(&tag, text, TAG_SIZE);
    return tag;
}

size_t write_message(uint8_t *frame, uint64_t tag)
{
    int opcode = options.is_text ? TEXT : BINARY;
    /* Any key will do, so long as it is not zero, which could be skipped. */
    uint32_t seed = (uint32_t)(tag ^ tag >> 32) * 2654435761u;
    uint8_t key[4] = { (uint8_t)(seed | 1), (uint8_t)(seed >> 8 | 2), (uint8_t)(seed >> 16 | 4), (uint8_t)(seed >> 24 | 8) };
    memcpy(message, pattern, options.size);
    memcpy(message, &tag, options.size < TAG_SIZE ? options.size : TAG_SIZE);
    size_t size = options.size, header;
    if (options.is_compressed) {
        uint8_t *compressed = malloc(deflate_bound(size));
        if (!compressed) die("out of memory");
        size = deflate_message(message, size, compressed);
        header = write_header(frame, opcode | RSV1, size, key);
        memcpy(frame + header, compressed, size);
        free(compressed);
    } else {
        header = write_header(frame, opcode, size, key);
        memcpy(frame + header, message, size);
    }
    for (size_t i = 0; i < size; i++) frame[header + i] ^= key[i & 3];
    return header + size;
}

size_t write_control(uint8_t *frame, int opcode, const uint8_t *payload, size_t size)
{
    static const uint8_t key[4] = { 0x12, 0x34, 0x56, 0x78 };
    size_t header = write_header(frame, opcode, size, key);
    for (size_t i = 0; i < size; i++) frame[header + i] = payload[i] ^ key[i & 3];
    return header + size;
}

bool is_expected(uint64_t tag, uint64_t offset, const uint8_t *data, size_t size)
{
    if (offset + size > options.size) return false;
    if (offset < TAG_SIZE) {
        size_t rest = TAG_SIZE - (size_t)offset, part = size < rest ? size : rest;
        if (memcmp(data, (const uint8_t *)&tag + offset, part)) return false;
        data += part, size -= part, offset += part;
    }
    if (size <= 256 || options.is_verifying) return !memcmp(data, pattern + offset, size);
    return !memcmp(data, pattern + offset, 32) && !memcmp(data + size - 32, pattern + offset + size - 32, 32);
}
