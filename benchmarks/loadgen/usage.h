/* Who used how much CPU: the servers, this process, and everybody, on each CPU (/proc/stat). */

#ifndef LOADGEN_USAGE_H
#define LOADGEN_USAGE_H

#include <stdint.h>
#include <stdio.h>

#define MAX_CPUS 256

typedef struct {
    uint64_t at;            /* nanoseconds, monotonic */
    double servers;         /* seconds, as all of these */
    double servers_user;    /* these two in ticks of the kernel, which is coarse */
    double servers_system;
    double own;
    int cpus;
    double busy[MAX_CPUS];
    double stolen[MAX_CPUS]; /* by the hypervisor */
} usage_t;

uint64_t now_nanoseconds(void);

void usage_take(usage_t *usage);

/* The differences of two, as members of a JSON object; `busy` is the time in which there was something to do. */
void usage_print(FILE *file, const usage_t *before, const usage_t *after, double busy);

#endif
