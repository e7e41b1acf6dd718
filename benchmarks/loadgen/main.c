/* A load generator for WebSocket servers on this machine: C11, epoll, one thread; see options.c for its usage. */

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "load.h"
#include "options.h"

static void pin(void)
{
    cpu_set_t set;
    if (options.cpu < 0) return;
    CPU_ZERO(&set);
    CPU_SET(options.cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("CPU %d: %s", options.cpu, strerror(errno));
}

static void raise_files(void)
{
    struct rlimit limit;
    int needed = options.connections + options.idle + 32;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)needed)
        die("%d open files are needed, the limit is %llu", needed, (unsigned long long)limit.rlim_cur);
}

int main(int argc, char **argv)
{
    static const load_mode *const modes[] = { &echo_mode, &broadcast_mode, &churn_mode, &hold_mode };
    options_read(argc, argv);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    raise_files();
    pin();
    mode = modes[options.mode];
    streams_prepare();
    frames_prepare();
    connections_prepare();
    load_prepare();
    return options.mode == HOLD ? hold_run() : load_run();
}
