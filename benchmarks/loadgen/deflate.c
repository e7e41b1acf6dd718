#include "deflate.h"

#include <stdlib.h>
#include <string.h>

#include "options.h"

#define TAIL_SIZE 4 /* 00 00 ff ff, which a message leaves out (RFC 7692 section 7.2.1) */

#ifdef WITH_LIBRARIES

#include <zlib.h>

#define LEVEL 6
#define WINDOW_BITS 12 /* what any server that limits the client's window is known to accept */
#define MEMORY 8
#define STREAM_OVERHEAD 64

struct inflater {
    z_stream stream;
};

size_t deflate_bound(size_t size) { return compressBound((uLong)size) + STREAM_OVERHEAD; }

size_t deflate_message(const uint8_t *message, size_t size, uint8_t *compressed)
{
    z_stream stream = { .next_in = (uint8_t *)message, .avail_in = (uInt)size, .next_out = compressed };
    if (deflateInit2(&stream, LEVEL, Z_DEFLATED, -WINDOW_BITS, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) die("deflateInit2");
    stream.avail_out = (uInt)deflate_bound(size);
    if (deflate(&stream, Z_SYNC_FLUSH) != Z_OK || !stream.avail_out) die("deflate");
    deflateEnd(&stream);
    return stream.total_out - TAIL_SIZE;
}

inflater_t *inflater_new(void)
{
    inflater_t *inflater = calloc(1, sizeof *inflater);
    if (!inflater || inflateInit2(&inflater->stream, -MAX_WBITS) != Z_OK) die("inflateInit2");
    return inflater;
}

void inflater_free(inflater_t *inflater)
{
    if (!inflater) return;
    inflateEnd(&inflater->stream);
    free(inflater);
}

void inflater_reset(inflater_t *inflater) { inflateReset(&inflater->stream); }

ptrdiff_t inflate_message(inflater_t *inflater, uint8_t *compressed, size_t size, uint8_t *message, size_t capacity)
{
    z_stream *stream = &inflater->stream;
    memcpy(compressed + size, "\0\0\377\377", TAIL_SIZE);
    stream->next_in = compressed;
    stream->avail_in = (uInt)(size + TAIL_SIZE);
    stream->next_out = message;
    stream->avail_out = (uInt)capacity;
    int result = inflate(stream, Z_SYNC_FLUSH);
    bool is_whole = (result == Z_OK || result == Z_BUF_ERROR) && !stream->avail_in;
    return is_whole ? (ptrdiff_t)(capacity - stream->avail_out) : -1;
}

#else

size_t deflate_bound(size_t size) { return size; }
void inflater_free(inflater_t *inflater) { (void)inflater; }
void inflater_reset(inflater_t *inflater) { (void)inflater; }

inflater_t *inflater_new(void) { die("built without zlib: --compressed is not known"); }

size_t deflate_message(const uint8_t *message, size_t size, uint8_t *compressed)
{
    (void)message, (void)size, (void)compressed;
    die("built without zlib: --compressed is not known");
}

ptrdiff_t inflate_message(inflater_t *inflater, uint8_t *compressed, size_t size, uint8_t *message, size_t capacity)
{
    (void)inflater, (void)compressed, (void)size, (void)message, (void)capacity;
    return -1;
}

#endif
