#define _GNU_SOURCE
#include "handshake.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 section 1.3 */
#define KEY_SIZE 24
#define MAX_REQUEST 16384

static uint32_t rotate(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }

/* FIPS 180-4, of at most 119 bytes. */
static void sha1(const uint8_t *data, size_t size, uint8_t digest[20])
{
    uint32_t h[5] = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0 };
    uint8_t blocks[128] = { 0 };
    size_t total = size + 9 <= 64 ? 64 : 128;
    memcpy(blocks, data, size);
    blocks[size] = 0x80;
    for (int i = 0; i < 8; i++) blocks[total - 1 - (size_t)i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            memcpy(&w[i], blocks + at + 4 * i, 4);
            w[i] = __builtin_bswap32(w[i]);
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t next = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 5; i++) {
        uint32_t word = __builtin_bswap32(h[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

static void base64_of_digest(const uint8_t digest[20], char text[29])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t padded[21] = { 0 };
    memcpy(padded, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t three = (uint32_t)padded[3 * i] << 16 | (uint32_t)padded[3 * i + 1] << 8 | padded[3 * i + 2];
        for (int k = 0; k < 4; k++) text[4 * i + k] = digits[three >> (18 - 6 * k) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

ptrdiff_t handshake_answer(const uint8_t *data, size_t size, char answer[ANSWER_SIZE])
{
    static const char name[] = "\r\nsec-websocket-key:";
    char head[MAX_REQUEST + 1], accept[29];
    uint8_t digest[20];
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return size < MAX_REQUEST ? 0 : -1;
    size_t used = (size_t)(end + 4 - data);
    if (used > MAX_REQUEST) return -1;
    memcpy(head, data, used);
    head[used] = 0;
    char *key = strcasestr(head, name);
    if (!key || strncmp(head, "GET ", 4)) return -1;
    key += sizeof name - 1;
    key += strspn(key, " ");
    if (strcspn(key, " \r") != KEY_SIZE) return -1;
    memmove(head, key, KEY_SIZE);
    memcpy(head + KEY_SIZE, GUID, sizeof GUID - 1);
    sha1((const uint8_t *)head, KEY_SIZE + sizeof GUID - 1, digest);
    base64_of_digest(digest, accept);
    snprintf(answer, ANSWER_SIZE, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    return (ptrdiff_t)used;
}
