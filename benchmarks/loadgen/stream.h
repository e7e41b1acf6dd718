/* Bytes to and from one socket, which never blocks: plain, or TLS by OpenSSL where that was built in (-DWITH_LIBRARIES). */

#ifndef LOADGEN_STREAM_H
#define LOADGEN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    int fd;           /* -1: none */
    bool wants_write; /* of TLS: nothing goes on before the socket is writable */
    struct ssl_st *tls;
} stream_t;

/* Once, before the first stream; ends the program if TLS is wanted and was not built in. */
void streams_prepare(void);

/* Begin to connect; false with errno set. */
bool stream_connect(stream_t *stream, uint16_t port);

/* The handshake of TLS, or nothing: 1 done, 0 goes on, -1 failed. */
int stream_establish(stream_t *stream);

/* As recv(2) and send(2), except that 0 is never returned by the latter: -1 with EAGAIN if nothing goes now. */
ssize_t stream_read(stream_t *stream, uint8_t *data, size_t size);
ssize_t stream_write(stream_t *stream, const uint8_t *data, size_t size);

/* Whether bytes wait in this process, of which the kernel will tell nothing. */
bool stream_has_pending(const stream_t *stream);

void stream_close(stream_t *stream);

#endif
