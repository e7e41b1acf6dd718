#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "load.h"
#include "options.h"
#include "usage.h"

#define READ_SIZE (512 * 1024)
#define MAX_ANSWER 4096    /* bytes of HTTP */
#define MAX_COMPLAINTS 5
#define EVENTS 256         /* of one epoll_wait */

/* The example of RFC 6455 section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
/* What browsers offer. */
#define OFFER "permessage-deflate; client_max_window_bits"

const load_mode *mode;

static int epoll;
static uint8_t read_buffer[READ_SIZE];
static char request[320];
static size_t request_size;

void connections_prepare(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1: %s", strerror(errno));
    request_size = (size_t)snprintf(request, sizeof request,
                                    "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                    "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n", options.port,
                                    options.is_compressed ? "Sec-WebSocket-Extensions: " OFFER "\r\n" : "");
}

/* What belongs to what has been received. */
static void forget(connection_t *connection)
{
    free(connection->answer);
    connection->answer = NULL;
    free(connection->receiving.compressed);
    inflater_free(connection->receiving.inflater);
    memset(&connection->receiving, 0, sizeof connection->receiving);
}

void connection_fail(connection_t *connection, const char *why)
{
    if (load.errors++ < MAX_COMPLAINTS)
        fprintf(stderr, "loadgen: connection %d, state %d: %s%s%s\n", connection->id, connection->state, why,
                errno ? ": " : "", errno ? strerror(errno) : "");
    if (connection->state <= UPGRADING) {
        load.opening--;
        load.failed++;
    } else {
        load.lost++;
    }
    stream_close(&connection->stream);
    forget(connection);
    connection->state = FAILED;
}

/* Plain TCP is edge-triggered, all of it watched from the beginning: one call.  OpenSSL leaves bytes in the socket of
   which no edge would tell, so TLS is level-triggered, and writing is watched while something waits for it. */
static void watch(connection_t *connection, int operation)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection };
    if (options.is_tls) event.events = EPOLLIN | EPOLLRDHUP | (connection->stream.wants_write ? EPOLLOUT : 0u);
    if (epoll_ctl(epoll, operation, connection->stream.fd, &event)) connection_fail(connection, "epoll_ctl");
}

void connection_open(connection_t *connection)
{
    errno = 0;
    connection->state = CONNECTING;
    connection->received = 0;
    connection->unsent_size = 0;
    connection->answer_size = 0;
    connection->began = connection->since = now_nanoseconds();
    load.opening++;
    if (!stream_connect(&connection->stream, options.port)) {
        connection_fail(connection, "connect");
        return;
    }
    errno = 0;
    watch(connection, EPOLL_CTL_ADD);
}

void connection_send(connection_t *connection, const uint8_t *data, size_t size)
{
    stream_t *stream = &connection->stream;
    bool wanted = stream->wants_write;
    while (size) {
        ssize_t taken = stream_write(stream, data, size);
        if (taken < 0 && errno == EAGAIN) break;
        if (taken < 0) {
            connection_fail(connection, "send");
            return;
        }
        data += taken;
        size -= (size_t)taken;
        if (size && !stream->tls) break; /* the edge tells when there is room */
    }
    errno = 0;
    connection->unsent = data;
    connection->unsent_size = size;
    if (stream->tls && stream->wants_write != wanted) watch(connection, EPOLL_CTL_MOD);
}

void connection_close(connection_t *connection)
{
    static const uint8_t normal[2] = { 1000 >> 8, 1000 & 255 };
    uint8_t frame[MAX_HEADER + sizeof normal];
    connection_send(connection, frame, write_control(frame, CLOSE, normal, sizeof normal));
    if (connection->state == FAILED) return;
    if (connection->unsent_size) {
        connection_fail(connection, "no room for a Close frame");
        return;
    }
    connection->state = CLOSING;
    connection->since = now_nanoseconds();
}

/* The value of a header field, or NULL; the answer ends with a zero byte. */
static const char *field(const char *answer, const char *name)
{
    const char *found = strcasestr(answer, name);
    return found ? found + strlen(name) + strspn(found + strlen(name), " \t") : NULL;
}

/* Why this answer is wrong, or NULL. */
static const char *judge(const char *answer)
{
    const char *accept = field(answer, "\r\nsec-websocket-accept:");
    if (strncmp(answer, "HTTP/1.1 101", 12)) return "the answer is not 101";
    if (!accept || strncmp(accept, ACCEPT, sizeof ACCEPT - 1)) return "Sec-WebSocket-Accept is missing or wrong";
    const char *extension = field(answer, "\r\nsec-websocket-extensions:");
    if (!options.is_compressed) return extension ? "an extension that was not offered" : NULL;
    return extension && !strncmp(extension, "permessage-deflate", 18) ? NULL : "compression is refused";
}

/* Take in the answer to the handshake; how many of the bytes belong to it, all if it goes on. */
static size_t upgrade(connection_t *connection, const uint8_t *data, size_t size, uint64_t now)
{
    uint32_t before = connection->answer_size;
    if (!connection->answer) connection->answer = malloc(MAX_ANSWER + 1);
    if (!connection->answer) die("out of memory");
    size_t taken = size < MAX_ANSWER - before ? size : MAX_ANSWER - before;
    memcpy(connection->answer + before, data, taken);
    connection->answer_size += (uint32_t)taken;
    connection->answer[connection->answer_size] = 0;
    char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end) {
        if (connection->answer_size == MAX_ANSWER) connection_fail(connection, "too long an answer to the handshake");
        return size;
    }
    size_t used = (size_t)(end + 4 - connection->answer) - before;
    end[2] = 0;
    const char *wrong = judge(connection->answer);
    if (wrong) {
        connection_fail(connection, wrong);
        return size;
    }
    connection->receiving.keeps_context = !strstr(connection->answer, "server_no_context_takeover");
    free(connection->answer);
    connection->answer = NULL;
    connection->state = OPEN;
    load.opening--;
    load.opened++;
    load.progress++;
    if (load.phase == OPENING || options.mode == CHURN) histogram_add(&load.handshakes, now - connection->began);
    mode->opened(connection);
    return used;
}

/* After an event while CONNECTING or SECURING: go on with it. */
static void establish(connection_t *connection, uint32_t events)
{
    if (connection->state == CONNECTING) {
        socklen_t size = sizeof errno;
        if (events & (EPOLLERR | EPOLLHUP)) {
            getsockopt(connection->stream.fd, SOL_SOCKET, SO_ERROR, &errno, &size);
            connection_fail(connection, "connect");
            return;
        }
        if (!(events & EPOLLOUT)) return;
        connection->stream.wants_write = false;
        connection->state = SECURING;
    }
    int result = stream_establish(&connection->stream);
    if (result < 0) {
        connection_fail(connection, "TLS handshake");
        return;
    }
    if (result) {
        connection->state = UPGRADING;
        connection_send(connection, (const uint8_t *)request, request_size);
    }
    if (options.is_tls && connection->state != FAILED) watch(connection, EPOLL_CTL_MOD);
}

/* Nothing more will come. */
static void end(connection_t *connection, const char *why)
{
    if (connection->state != CLOSED) {
        connection_fail(connection, why);
        return;
    }
    stream_close(&connection->stream);
    forget(connection);
    connection->state = UNUSED;
    mode->ended(connection, now_nanoseconds());
}

/* Read until the kernel has no more; of TLS until nothing is left in this process. */
static void read_all(connection_t *connection, bool is_ending)
{
    stream_t *stream = &connection->stream;
    for (;;) {
        ssize_t size = stream_read(stream, read_buffer, READ_SIZE);
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) {
            end(connection, size ? "recv" : "end of file");
            return;
        }
        uint64_t now = now_nanoseconds();
        size_t used = connection->state == UPGRADING ? upgrade(connection, read_buffer, (size_t)size, now) : 0;
        if (connection->state >= OPEN && used < (size_t)size)
            receive(connection, read_buffer + used, (size_t)size - used, now);
        if (connection->state == FAILED) return;
        if (connection->state == OPEN) mode->read(connection, now);
        if (connection->state == FAILED) return;
        bool may_have_more = stream->tls ? stream_has_pending(stream) : size == READ_SIZE;
        if (!may_have_more && !is_ending) return;
    }
}

static void on_event(connection_t *connection, uint32_t events)
{
    errno = 0;
    if (connection->state == UNUSED || connection->state == FAILED) return;
    if (connection->state <= SECURING) {
        establish(connection, events);
        return;
    }
    if (events & EPOLLOUT && connection->unsent_size) {
        connection_send(connection, connection->unsent, connection->unsent_size);
        if (connection->state == FAILED) return;
    }
    bool is_ending = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    if (events & EPOLLIN || is_ending) read_all(connection, is_ending);
}

int connections_poll(int milliseconds)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, milliseconds);
    if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
    return count < 0 ? 0 : count;
}
