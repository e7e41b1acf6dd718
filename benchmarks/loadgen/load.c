#include "load.h"

#include <stdio.h>
#include <stdlib.h>

#include "options.h"
#include "usage.h"

#define SECOND 1000000000ull
#define AT_ONCE 64                 /* opening handshakes under way */
#define OPENING_LIMIT (30 * SECOND) /* without any progress */
#define STALL_LIMIT (5 * SECOND)
#define LOOK_INTERVAL (SECOND / 20)
#define SETTLE (SECOND / 5)        /* between the last handshake and the load */

load_t load;

static int next; /* connection to be opened */

void load_prepare(void)
{
    load.count = options.connections + options.idle;
    load.connections = calloc((size_t)load.count, sizeof *load.connections);
    if (!load.connections) die("out of memory");
    for (int i = 0; i < load.count; i++) {
        connection_t *connection = &load.connections[i];
        connection->id = i;
        connection->stream.fd = -1;
        if (i >= options.connections) continue;
        connection->frames = malloc((size_t)options.depth * frame_capacity());
        connection->tags = calloc((size_t)options.depth, sizeof *connection->tags);
        if (!connection->frames || !connection->tags) die("out of memory");
        for (int k = 0; k < options.depth; k++) {
            connection->tags[k] = make_tag((unsigned)i, (unsigned)k);
            connection->frames_size += write_message(connection->frames + connection->frames_size, connection->tags[k]);
        }
    }
}

bool load_open_some(void)
{
    while (load.opening < AT_ONCE && next < load.count) connection_open(&load.connections[next++]);
    return next == load.count;
}

static bool is_open(void)
{
    bool all_begun = load_open_some();
    return all_begun && (options.mode == CHURN || load.opened + load.failed >= (uint64_t)load.count);
}

static void print_result(const usage_t *before, const usage_t *after, double busy)
{
    printf("{\"event\":\"result\",\"messages\":%llu,\"opened\":%llu,\"errors\":%llu,\"is_stalled\":%s,",
           (unsigned long long)load.messages, (unsigned long long)load.opened, (unsigned long long)load.errors,
           load.is_stalled ? "true" : "false");
    histogram_print(stdout, "latency", &load.latencies);
    printf(",");
    histogram_print(stdout, "handshake", &load.handshakes);
    printf(",");
    usage_print(stdout, before, after, busy);
    printf("}\n");
}

/* Of churn: a connection on which nothing happened for too long has failed; one that failed is opened anew. */
static void look_after_cycles(uint64_t now)
{
    for (int i = 0; i < load.count; i++) {
        connection_t *connection = &load.connections[i];
        if (connection->state != FAILED && connection->state != UNUSED && now - connection->since > STALL_LIMIT)
            connection_fail(connection, "timed out");
        if (connection->state == FAILED) connection_open(connection);
    }
}

/* Whether to give up: nothing happens, or nobody is left. */
static bool is_hopeless(uint64_t now)
{
    static uint64_t seen, seen_at;
    if (load.progress != seen || !seen_at) {
        seen = load.progress;
        seen_at = now;
    }
    uint64_t limit = load.phase == OPENING ? OPENING_LIMIT : STALL_LIMIT;
    if (now - seen_at > limit) return true;
    if (load.phase == OPENING) return load.failed >= (uint64_t)load.count;
    return options.mode == BROADCAST ? load.lost > 0 : options.mode != CHURN && load.lost >= load.opened;
}

/* It never sleeps: so it answers at once, and the time in which nothing had come is known, which is its reserve. */
int load_run(void)
{
    usage_t before, after;
    uint64_t last = now_nanoseconds(), looked = last, phase_began = 0, idle = 0;
    usage_take(&before);
    while (load.phase != STOPPED) {
        int count = connections_poll(0);
        uint64_t now = now_nanoseconds();
        if (!count && load.phase == MEASURING) idle += now - last;
        last = now;
        double elapsed = (double)(now - phase_began) * 1e-9;
        if (load.phase == OPENING && is_open()) {
            if (!phase_began) phase_began = now;
            if (now - phase_began < SETTLE) continue;
            load.phase = WARMING;
            phase_began = now;
            mode->begin();
        } else if (load.phase == WARMING && elapsed >= options.warmup) {
            usage_take(&before);
            load.phase = MEASURING;
            last = phase_began = before.at;
        } else if (load.phase == MEASURING && elapsed >= options.seconds) {
            load.phase = STOPPED;
        } else if (now - looked > LOOK_INTERVAL) {
            looked = now;
            if (options.mode == CHURN) look_after_cycles(now);
            if (is_hopeless(now)) {
                load.is_stalled = true;
                load.phase = STOPPED;
            }
        }
    }
    usage_take(&after);
    print_result(&before, &after, (double)(after.at - before.at - idle) * 1e-9);
    return load.is_stalled ? 3 : 0;
}
