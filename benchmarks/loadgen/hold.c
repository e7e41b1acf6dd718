/* Very many connections, held for whoever looks at the server's memory meanwhile.
   When all are open it says so; `begin` echoes on each of them, again and again; `end` stops that and says how many
   messages came; the end of stdin ends all. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "load.h"
#include "options.h"
#include "usage.h"

#define OPENING_LIMIT 60.0 /* seconds */
#define END_LIMIT 20.0

static bool is_echoing;
static uint64_t under_way;

static void send_one(connection_t *connection)
{
    connection->received = 0;
    under_way++;
    connection_send(connection, connection->frames, connection->frames_size);
}

static void nothing_to_begin(void) {}
static void nothing(connection_t *connection) { (void)connection; }
static void nothing_more(connection_t *connection, uint64_t now) { (void)connection, (void)now; }
static uint64_t expected(const connection_t *connection) { return connection->tags[0]; }

static void message(connection_t *connection, uint64_t now)
{
    (void)now;
    connection->received++;
    load.messages++;
    under_way--;
}

static void after_read(connection_t *connection, uint64_t now)
{
    (void)now;
    if (!connection->received) return;
    connection->received = 0;
    if (is_echoing) send_one(connection);
}

const load_mode hold_mode = { nothing_to_begin, nothing, expected, message, after_read, nothing_more };

static double seconds_since(uint64_t began) { return (double)(now_nanoseconds() - began) * 1e-9; }

static void say(const char *event, double seconds)
{
    printf("{\"event\":\"%s\",\"opened\":%llu,\"errors\":%llu,\"messages\":%llu,\"seconds\":%.4f,", event,
           (unsigned long long)load.opened, (unsigned long long)load.errors, (unsigned long long)load.messages, seconds);
    histogram_print(stdout, "handshake", &load.handshakes);
    printf("}\n");
    fflush(stdout);
}

/* The first character of the next line that is there, 0 at the end of stdin, or ' ' if there is none yet. */
static char command(void)
{
    struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
    char first = 0, c;
    if (poll(&input, 1, 0) <= 0) return ' ';
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n') first = first ? first : c;
    return first;
}

static void begin_echoing(void)
{
    is_echoing = true;
    load.messages = 0;
    for (int i = 0; i < load.count; i++)
        if (load.connections[i].state == OPEN) send_one(&load.connections[i]);
}

static void end_echoing(void)
{
    uint64_t began = now_nanoseconds();
    is_echoing = false;
    while (under_way && seconds_since(began) < END_LIMIT) connections_poll(10);
    say("ended", seconds_since(began));
}

int hold_run(void)
{
    uint64_t began = now_nanoseconds();
    while (!load_open_some() || load.opened + load.failed < (uint64_t)load.count) {
        connections_poll(10);
        if (seconds_since(began) > OPENING_LIMIT) die("only %llu connections are open", (unsigned long long)load.opened);
    }
    say("open", seconds_since(began));
    for (;;) {
        connections_poll(10);
        switch (command()) {
        case 'b': begin_echoing(); break;
        case 'e': end_echoing(); break;
        case 0: return load.errors ? 3 : 0;
        }
    }
}
