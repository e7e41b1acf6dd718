/* The course of a run: connections are opened, the load begins, is warm, is measured, ends; and what was counted. */

#ifndef LOADGEN_LOAD_H
#define LOADGEN_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "connection.h"
#include "histogram.h"

typedef enum { OPENING, WARMING, MEASURING, STOPPED } phase_t;

typedef struct {
    phase_t phase;
    int count;                 /* of connections, idle ones included */
    connection_t *connections; /* those that carry load come first */
    int opening;               /* handshakes under way */
    uint64_t opened;
    uint64_t failed;           /* before they were open */
    uint64_t lost;             /* after */
    uint64_t errors;
    uint64_t messages;         /* received and measured; of churn cycles */
    uint64_t progress;         /* grows while anything goes on */
    bool is_stalled;
    histogram_t latencies;     /* of what is measured */
    histogram_t handshakes;
} load_t;

extern load_t load;

/* Make the connections, and the frames of those that carry load. */
void load_prepare(void);

/* Open as many of the connections as may be under way; whether none is left. */
bool load_open_some(void);

/* From opening to the result on stdout; the exit status. */
int load_run(void);

/* The same for the mode `hold`, which obeys stdin (hold.c). */
int hold_run(void);

extern const load_mode echo_mode, broadcast_mode, churn_mode, hold_mode;

#endif
