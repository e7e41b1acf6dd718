#include "frames.h"

#include <stdlib.h>
#include <string.h>

#include "options.h"

static uint8_t *pattern;
static size_t header_size;

static size_t write_header(uint8_t *p, int opcode, uint64_t size, const uint8_t key[4])
{
    size_t used = 2;
    p[0] = (uint8_t)(0x80 | opcode);
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

void frames_prepare(void)
{
    uint8_t header[MAX_HEADER], key[4] = { 0 };
    header_size = write_header(header, BINARY, options.size, key);
    pattern = malloc(options.size + 1);
    if (!pattern) die("out of memory");
    for (size_t i = 0; i < options.size; i++) pattern[i] = (uint8_t)('a' + (i * 7 + i / 26) % 26);
}

size_t frame_size(void) { return header_size + options.size; }

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

void write_message(uint8_t *frame, uint64_t tag)
{
    /* Any key will do, so long as it is not zero, which could be skipped. */
    uint32_t seed = (uint32_t)(tag ^ tag >> 32) * 2654435761u;
    uint8_t key[4] = { (uint8_t)(seed | 1), (uint8_t)(seed >> 8 | 2), (uint8_t)(seed >> 16 | 4), (uint8_t)(seed >> 24 | 8) };
    uint8_t *payload = frame + write_header(frame, options.is_text ? TEXT : BINARY, options.size, key);
    memcpy(payload, pattern, options.size);
    memcpy(payload, &tag, options.size < TAG_SIZE ? options.size : TAG_SIZE);
    for (size_t i = 0; i < options.size; i++) payload[i] ^= key[i & 3];
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
