/* The limit: a WebSocket server with nothing but epoll, one recv and one send per readable socket.
 *
 *     bare --port PORT [--mode echo|broadcast]
 *
 * It trusts its clients, checks no UTF-8, and answers a frame when all of it is there; a fragment is echoed as one. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buffer.h"
#include "handshake.h"

#define READ_SIZE (256 * 1024)
#define MAX_PAYLOAD (64u << 20)
#define BACKLOG 4096
#define EVENTS 256

enum { CLOSE = 8, PING = 9, PONG = 10 };

typedef struct {
    int fd;
    bool is_open;
    bool is_closing; /* a Close frame is answered, or about to be */
    unsigned place;  /* in `members` */
    buffer_t in;
    buffer_t out;
} connection_t;

/* The answers to the frames of one read, put together where the frames were. */
typedef struct {
    uint8_t *data;
    size_t size;
} answers_t;

static int epoll;
static bool is_broadcasting;
static uint8_t read_buffer[READ_SIZE] __attribute__((aligned(64)));
static connection_t **members; /* the open connections */
static unsigned member_count, member_capacity;

/* From src to dst <= src, which may overlap; the compiler makes vectors of it. */
static void unmask(uint8_t *dst, const uint8_t *src, size_t size, uint32_t key)
{
    uint64_t wide = (uint64_t)key << 32 | key, block[4];
    size_t i = 0;
    for (; i + sizeof block <= size; i += sizeof block) {
        memcpy(block, src + i, sizeof block);
        for (int k = 0; k < 4; k++) block[k] ^= wide;
        memcpy(dst + i, block, sizeof block);
    }
    for (; i < size; i++) dst[i] = src[i] ^ (uint8_t)(key >> (8 * (i & 3)));
}

static size_t write_header(uint8_t *p, uint8_t first, uint64_t size)
{
    p[0] = first;
    if (size < 126) return p[1] = (uint8_t)size, 2;
    if (size < 65536) return p[1] = 126, p[2] = (uint8_t)(size >> 8), p[3] = (uint8_t)size, 4;
    p[1] = 127;
    size = __builtin_bswap64(size);
    memcpy(p + 2, &size, 8);
    return 10;
}

static bool send_or_keep(connection_t *connection, const uint8_t *data, size_t size)
{
    ssize_t taken = connection->out.size ? 0 : send(connection->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken < 0 && errno != EAGAIN) return false;
    if (taken < 0) taken = 0;
    if ((size_t)taken < size) buffer_add(&connection->out, data + taken, size - (size_t)taken);
    return true;
}

static void join(connection_t *connection)
{
    if (member_count == member_capacity) {
        member_capacity = member_capacity ? 2 * member_capacity : 1024;
        members = realloc(members, member_capacity * sizeof *members);
        if (!members) abort();
    }
    connection->is_open = true;
    connection->place = member_count;
    members[member_count++] = connection;
}

static void drop(connection_t *connection)
{
    if (connection->is_open) {
        connection_t *last = members[--member_count];
        members[connection->place] = last;
        last->place = connection->place;
    }
    close(connection->fd);
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    free(connection);
}

static void broadcast(const uint8_t *frame, size_t size)
{
    /* Who cannot be sent to is found by its own event. */
    for (unsigned i = 0; i < member_count; i++)
        if (!send_or_keep(members[i], frame, size)) shutdown(members[i]->fd, SHUT_RDWR);
}

/* Answer one whole frame, whose payload stands behind its header and key: a server's header is as long without the key. */
static void answer(uint8_t first, uint8_t *payload, uint64_t size, size_t header, uint32_t key, answers_t *answers)
{
    uint8_t opcode = first & 15;
    if (opcode == PONG) return;
    if (opcode == PING) first = 0x80 | PONG;
    if (is_broadcasting && opcode < CLOSE) {
        unmask(payload, payload, size, key);
        write_header(payload - header, first, size);
        broadcast(payload - header, header + size);
        return;
    }
    if (!answers->size) answers->data = payload - header; /* the first stays where it is, the others move up to it */
    uint8_t *to = answers->data + answers->size;
    unmask(to + header, payload, size, key);
    answers->size += write_header(to, first, size) + size;
}

/* Answer all whole frames; the bytes that they took, or -1 for an error.  needed: of the next frame, if it is known. */
static ptrdiff_t take_frames(connection_t *connection, uint8_t *data, size_t size, answers_t *answers, size_t *needed)
{
    size_t at = 0;
    while (size - at >= 2 && !connection->is_closing) {
        const uint8_t *frame = data + at;
        uint8_t first = frame[0];
        uint64_t length = frame[1] & 127;
        size_t header = length == 127 ? 10 : length == 126 ? 4 : 2;
        uint32_t key;
        if (!(frame[1] & 0x80) || first & 0x70) return -1;
        if (size - at < header) break;
        if (header == 4) length = (uint64_t)frame[2] << 8 | frame[3];
        if (header == 10) {
            memcpy(&length, frame + 2, 8);
            length = __builtin_bswap64(length);
        }
        if (length > MAX_PAYLOAD) return -1;
        size_t whole = header + 4 + (size_t)length;
        if (size - at < whole) {
            *needed = whole;
            break;
        }
        memcpy(&key, frame + header, 4);
        connection->is_closing = (first & 15) == CLOSE;
        answer(first, data + at + header + 4, length, header, key, answers);
        at += whole;
    }
    return (ptrdiff_t)at;
}

/* Deal with what is here; the bytes used, or -1 if the connection is over. */
static ptrdiff_t take(connection_t *connection, uint8_t *data, size_t size, size_t *needed)
{
    ptrdiff_t head = 0;
    if (!connection->is_open) {
        char text[ANSWER_SIZE];
        head = handshake_answer(data, size, text);
        if (head <= 0) return head;
        join(connection);
        if (!send_or_keep(connection, (const uint8_t *)text, strlen(text))) return -1;
    }
    answers_t answers = { 0 };
    ptrdiff_t used = take_frames(connection, data + head, size - (size_t)head, &answers, needed);
    if (used < 0 || (answers.size && !send_or_keep(connection, answers.data, answers.size))) return -1;
    return connection->is_closing && !connection->out.size ? -1 : head + used;
}

/* Keep what is not used yet, with room for what is missing of its frame. */
static void keep(connection_t *connection, const uint8_t *rest, size_t size, size_t needed)
{
    size_t more = needed > size ? needed - size : 4096;
    if (!connection->in.size) buffer_add(&connection->in, rest, size);
    buffer_reserve(&connection->in, more);
}

/* False: the connection is over.  Nothing is read while an answer waits. */
static bool on_readable(connection_t *connection)
{
    while (!connection->out.size) {
        buffer_t *in = &connection->in;
        bool is_kept = in->size;
        uint8_t *to = is_kept ? buffer_data(in) + in->size : read_buffer;
        size_t room = is_kept ? in->capacity - in->start - in->size : READ_SIZE, needed = 0;
        ssize_t size = recv(connection->fd, to, room, MSG_DONTWAIT);
        if (size < 0) return errno == EAGAIN || errno == EINTR;
        if (!size) return false;
        if (is_kept) in->size += (size_t)size;
        uint8_t *data = is_kept ? buffer_data(in) : read_buffer;
        size_t whole = is_kept ? in->size : (size_t)size;
        ptrdiff_t used = take(connection, data, whole, &needed);
        if (used < 0) return false;
        if (is_kept) buffer_take(in, (size_t)used);
        if ((size_t)used < whole) keep(connection, data + used, whole - (size_t)used, needed);
        if ((size_t)size < room) return true;
    }
    return true;
}

static bool on_writable(connection_t *connection)
{
    buffer_t *out = &connection->out;
    if (!out->size) return true;
    ssize_t taken = send(connection->fd, buffer_data(out), out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken < 0) return errno == EAGAIN;
    buffer_take(out, (size_t)taken);
    if (out->size) return true;
    return !connection->is_closing && on_readable(connection);
}

static void accept_some(int listener)
{
    int one = 1;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connection_t *connection = calloc(1, sizeof *connection);
        if (!connection) abort();
        connection->fd = fd;
        struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection };
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) drop(connection);
    }
}

static void on_event(connection_t *connection, uint32_t events)
{
    bool is_alive = !(events & EPOLLOUT) || on_writable(connection);
    if (is_alive && events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) is_alive = on_readable(connection);
    if (events & (EPOLLHUP | EPOLLERR) || (events & EPOLLRDHUP && !connection->out.size)) is_alive = false;
    if (!is_alive) drop(connection);
}

static int listen_on(int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG)) {
        perror("listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct rlimit files;
    struct epoll_event events[EVENTS], event = { .events = EPOLLIN };
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--mode")) is_broadcasting = !strcmp(argv[i + 1], "broadcast");
    }
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listen_on(port);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
            else accept_some(listener);
        }
    }
}
