#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24 /* linux/in.h */
#endif

/* Connections come from several addresses, 127.0.0.2 and on, so that ports do not run out. */
#define SOURCES 8

#ifdef WITH_LIBRARIES
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *context;

void streams_prepare(void)
{
    if (!options.is_tls) return;
    context = SSL_CTX_new(TLS_client_method());
    if (!context) die("OpenSSL gives no context");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1); /* one read(2) for a record's header and its body */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

static int establish(stream_t *stream)
{
    if (!stream->tls) {
        stream->tls = SSL_new(context);
        if (!stream->tls || !SSL_set_fd(stream->tls, stream->fd)) return -1;
    }
    ERR_clear_error();
    int result = SSL_connect(stream->tls);
    if (result == 1) return 1;
    int error = SSL_get_error(stream->tls, result);
    stream->wants_write = error == SSL_ERROR_WANT_WRITE;
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t translate(stream_t *stream, int result)
{
    if (result > 0) return result;
    int saved = errno, error = SSL_get_error(stream->tls, result);
    stream->wants_write = error == SSL_ERROR_WANT_WRITE;
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : saved ? saved : EPROTO;
    return -1;
}

static ssize_t tls_read(stream_t *stream, uint8_t *data, size_t size)
{
    ERR_clear_error(); /* SSL_get_error looks at what is left there */
    return translate(stream, SSL_read(stream->tls, data, (int)size));
}

static ssize_t tls_write(stream_t *stream, const uint8_t *data, size_t size)
{
    ERR_clear_error();
    return translate(stream, SSL_write(stream->tls, data, (int)size));
}

bool stream_has_pending(const stream_t *stream) { return stream->tls && SSL_has_pending(stream->tls); }

static void tls_free(stream_t *stream)
{
    if (stream->tls) SSL_free(stream->tls);
    stream->tls = NULL;
}

#else /* each of them is reached with options.is_tls only */

void streams_prepare(void)
{
    if (options.is_tls) die("built without OpenSSL: install its headers (Debian: libssl-dev) and build again");
}

static int establish(stream_t *stream) { return (void)stream, -1; }
static ssize_t tls_read(stream_t *stream, uint8_t *data, size_t size) { return (void)stream, (void)data, (void)size, -1; }
static ssize_t tls_write(stream_t *stream, const uint8_t *data, size_t size) { return (void)stream, (void)data, (void)size, -1; }
bool stream_has_pending(const stream_t *stream) { return (void)stream, false; }
static void tls_free(stream_t *stream) { (void)stream; }

#endif

bool stream_connect(stream_t *stream, uint16_t port)
{
    static unsigned turn;
    int one = 1;
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002u + turn++ % SOURCES) };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    *stream = (stream_t){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .wants_write = true };
    if (stream->fd < 0) return false;
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(stream->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(stream->fd, (struct sockaddr *)&from, sizeof from)) return false;
    return !connect(stream->fd, (struct sockaddr *)&to, sizeof to) || errno == EINPROGRESS;
}

int stream_establish(stream_t *stream) { return options.is_tls ? establish(stream) : 1; }

ssize_t stream_read(stream_t *stream, uint8_t *data, size_t size)
{
    return stream->tls ? tls_read(stream, data, size) : recv(stream->fd, data, size, MSG_DONTWAIT);
}

ssize_t stream_write(stream_t *stream, const uint8_t *data, size_t size)
{
    return stream->tls ? tls_write(stream, data, size) : send(stream->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void stream_close(stream_t *stream)
{
    tls_free(stream);
    if (stream->fd >= 0) close(stream->fd);
    stream->fd = -1;
}
