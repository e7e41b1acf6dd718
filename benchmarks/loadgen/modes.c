/* What is sent when, of the modes that measure: echo, broadcast, churn. */

#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "options.h"
#include "usage.h"

static void nothing(connection_t *connection) { (void)connection; }
static void nothing_more(connection_t *connection, uint64_t now) { (void)connection, (void)now; }

static void count(uint64_t latency)
{
    load.progress++;
    if (load.phase != MEASURING) return;
    load.messages++;
    histogram_add(&load.latencies, latency);
}

/* Echo: a burst, and when the last answer is here the next. */

static void send_burst(connection_t *connection, uint64_t now)
{
    connection->received = 0;
    connection->since = now;
    connection_send(connection, connection->frames, connection->frames_size);
}

static void echo_begin(void)
{
    for (int i = 0; i < options.connections; i++)
        if (load.connections[i].state == OPEN) send_burst(&load.connections[i], now_nanoseconds());
}

static uint64_t echo_expected(const connection_t *connection)
{
    return connection->tags ? connection->tags[connection->received] : 0;
}

static void echo_message(connection_t *connection, uint64_t now)
{
    connection->received++;
    count(now - connection->since);
}

static void echo_read(connection_t *connection, uint64_t now)
{
    if (connection->received == (uint32_t)options.depth) send_burst(connection, now);
}

const load_mode echo_mode = { echo_begin, nothing, echo_expected, echo_message, echo_read, nothing_more };

/* Broadcast: the first connection sends `depth` messages; whenever all connections have one, it sends the next. */

typedef struct {
    uint64_t tag;
    uint64_t sent;     /* nanoseconds */
    uint64_t received; /* connections that have it */
} published_t;

static published_t *published; /* the messages under way; message n is the one at n % depth */
static uint64_t sent;
static uint64_t receivers;

static void publish(void)
{
    connection_t *sender = &load.connections[0];
    size_t place = sent % (uint64_t)options.depth;
    published[place] = (published_t){ make_tag((unsigned)(sent >> 16), (unsigned)sent), now_nanoseconds(), 0 };
    uint8_t *frame = sender->frames + place * frame_capacity();
    size_t size = write_message(frame, published[place].tag);
    sent++;
    if (sender->unsent_size) connection_fail(sender, "the server does not read what is to be broadcast");
    else connection_send(sender, frame, size);
}

static void broadcast_begin(void)
{
    published = calloc((size_t)options.depth, sizeof *published);
    if (!published) die("out of memory");
    receivers = load.opened;
    for (int i = 0; i < options.depth && load.connections[0].state == OPEN; i++) publish();
}

static uint64_t broadcast_expected(const connection_t *connection)
{
    return published[connection->received % (uint32_t)options.depth].tag;
}

static void broadcast_message(connection_t *connection, uint64_t now)
{
    published_t *message = &published[connection->received++ % (uint32_t)options.depth];
    load.progress++;
    if (load.phase == MEASURING) load.messages++;
    if (++message->received < receivers) return;
    if (load.phase == MEASURING) histogram_add(&load.latencies, now - message->sent);
    if (load.connections[0].state == OPEN) publish();
}

const load_mode broadcast_mode = {
    broadcast_begin, nothing, broadcast_expected, broadcast_message, nothing_more, nothing_more,
};

/* Churn: a message counted is a cycle, from connect to the end of TCP. */

static void nothing_to_begin(void) {}

static void churn_opened(connection_t *connection) { send_burst(connection, now_nanoseconds()); }

static void churn_read(connection_t *connection, uint64_t now)
{
    (void)now;
    if (connection->received) connection_close(connection);
}

static void churn_message(connection_t *connection, uint64_t now)
{
    (void)now;
    connection->received++;
}

static void churn_ended(connection_t *connection, uint64_t now)
{
    count(now - connection->began);
    if (load.phase != STOPPED) connection_open(connection);
}

const load_mode churn_mode = { nothing_to_begin, churn_opened, echo_expected, churn_message, churn_read, churn_ended };
