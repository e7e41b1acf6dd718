/* The server's frames, as RFC 6455 section 5.2 has them; every payload is compared with what was sent. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "options.h"

static size_t header_needs(const uint8_t *header)
{
    unsigned length = header[1] & 127;
    return length == 127 ? 10 : length == 126 ? 4 : 2;
}

static uint64_t length_of(const uint8_t *header)
{
    uint64_t length = header[1] & 127;
    if (length < 126) return length;
    size_t end = header_needs(header);
    length = 0;
    for (size_t i = 2; i < end; i++) length = length << 8 | header[i];
    return length;
}

/* Why no such frame may come now, or NULL. */
static const char *judge(const connection_t *connection, const uint8_t *header, uint64_t length)
{
    const receiving_t *receiving = &connection->receiving;
    int opcode = header[0] & 15;
    bool is_final = header[0] & 0x80;
    if (header[1] & 0x80) return "the server masks";
    bool may_be_compressed = options.is_compressed && (opcode == TEXT || opcode == BINARY);
    if (header[0] & (may_be_compressed ? 0x70 & ~RSV1 : 0x70)) return "a reserved bit is set";
    if (opcode >= CLOSE) return opcode <= PONG && length <= 125 && is_final ? NULL : "a wrong control frame";
    if (opcode > BINARY) return "an unknown opcode";
    if (opcode != CONTINUATION && receiving->offset) return "a new message within another";
    if (opcode != CONTINUATION && opcode != (options.is_text ? TEXT : BINARY)) return "text for binary, or the reverse";
    uint64_t total = receiving->offset + length;
    bool is_compressed = opcode == CONTINUATION ? receiving->is_compressed : header[0] & RSV1;
    if (is_compressed && total > deflate_bound(options.size)) return "a compressed message that is too long";
    if (!is_compressed && (total > options.size || (is_final && total != options.size))) return "a message of a wrong length";
    if (options.mode == ECHO && connection->received >= (uint32_t)options.depth) return "a message more than was sent";
    return NULL;
}

/* Take the header's bytes; whether it is complete. */
static bool take_header(connection_t *connection, const uint8_t **data, size_t *size)
{
    receiving_t *receiving = &connection->receiving;
    while (receiving->header_size < 2 || receiving->header_size < header_needs(receiving->header)) {
        if (!*size) return false;
        receiving->header[receiving->header_size++] = *(*data)++;
        --*size;
    }
    uint64_t length = length_of(receiving->header);
    const char *wrong = judge(connection, receiving->header, length);
    if (wrong) {
        connection_fail(connection, wrong);
        return false;
    }
    receiving->is_in_frame = true;
    receiving->is_final = receiving->header[0] & 0x80;
    receiving->opcode = receiving->header[0] & 15;
    if (receiving->opcode == TEXT || receiving->opcode == BINARY) receiving->is_compressed = receiving->header[0] & RSV1;
    receiving->control_size = 0;
    receiving->left = length;
    receiving->header_size = 0;
    return true;
}

static void end_control(connection_t *connection)
{
    receiving_t *receiving = &connection->receiving;
    if (receiving->opcode == PING && !connection->unsent_size) {
        uint8_t frame[MAX_HEADER + 125];
        connection_send(connection, frame, write_control(frame, PONG, receiving->control, receiving->control_size));
        if (connection->unsent_size) connection_fail(connection, "no room for a pong");
    } else if (receiving->opcode == CLOSE && connection->state == CLOSING) {
        connection->state = CLOSED;
    } else if (receiving->opcode == CLOSE) {
        char why[64];
        int code = receiving->control_size < 2 ? 1005 : receiving->control[0] << 8 | receiving->control[1];
        snprintf(why, sizeof why, "the server closes with %d", code);
        connection_fail(connection, why);
    }
}

static void collect(receiving_t *receiving, const uint8_t *data, size_t size)
{
    if (!receiving->inflater) {
        receiving->inflater = inflater_new();
        receiving->compressed = malloc(deflate_bound(options.size) + 4);
        if (!receiving->compressed) die("out of memory");
    }
    memcpy(receiving->compressed + receiving->offset, data, size);
}

/* Whether a whole compressed message is what it must be. */
static bool is_right(receiving_t *receiving, uint64_t tag)
{
    static uint8_t *message;
    if (!message) message = malloc(options.size + 1);
    if (!message) die("out of memory");
    if (!receiving->keeps_context) inflater_reset(receiving->inflater);
    ptrdiff_t size = inflate_message(receiving->inflater, receiving->compressed, receiving->offset, message, options.size + 1);
    return size == (ptrdiff_t)options.size && is_expected(tag, 0, message, options.size);
}

void receive(connection_t *connection, const uint8_t *data, size_t size, uint64_t now)
{
    receiving_t *receiving = &connection->receiving;
    while (size || (receiving->is_in_frame && !receiving->left)) {
        if (!receiving->is_in_frame && !take_header(connection, &data, &size)) return;
        size_t part = size < receiving->left ? size : (size_t)receiving->left;
        if (receiving->opcode >= CLOSE) {
            memcpy(receiving->control + receiving->control_size, data, part);
            receiving->control_size += (uint8_t)part;
        } else {
            if (receiving->is_compressed) collect(receiving, data, part);
            else if (!is_expected(mode->expected(connection), receiving->offset, data, part)) {
                connection_fail(connection, "not the payload that was sent");
                return;
            }
            receiving->offset += part;
        }
        data += part, size -= part, receiving->left -= part;
        if (receiving->left) return;
        receiving->is_in_frame = false;
        if (receiving->opcode >= CLOSE) {
            end_control(connection);
        } else if (receiving->is_final) {
            if (receiving->is_compressed && !is_right(receiving, mode->expected(connection))) {
                connection_fail(connection, "not the message that was sent, or a broken stream");
                return;
            }
            receiving->offset = 0;
            mode->message(connection, now);
        }
        if (connection->state == FAILED) return;
    }
}
