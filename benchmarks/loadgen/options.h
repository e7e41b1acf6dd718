/* The command line, read once; everything else asks `options`. */

#ifndef LOADGEN_OPTIONS_H
#define LOADGEN_OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_SERVERS 16 /* processes of one server, whose CPU time is added up */

typedef enum { ECHO, BROADCAST, CHURN, HOLD } mode_name;

typedef struct {
    mode_name mode;
    uint16_t port;
    int connections;     /* that carry load; of churn: cycles at the same time */
    int idle;            /* further ones, opened before the load, which stay silent */
    int depth;           /* messages in flight: of a connection, of broadcast in all */
    size_t size;         /* bytes of a payload */
    double seconds;      /* that are measured */
    double warmup;       /* seconds of the same load before */
    bool is_text;
    bool is_tls;
    bool is_compressed;  /* permessage-deflate is offered, and used both ways */
    bool is_verifying;   /* each byte of each answer, not only the ends of long ones */
    int cpu;             /* to be pinned to; -1: none */
    int servers;
    pid_t server[MAX_SERVERS];
} options_t;

extern options_t options;

/* Fill `options`, or explain and exit with 2. */
void options_read(int argc, char **argv);

/* Say why on stderr and exit with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
