#define _GNU_SOURCE
#include "usage.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "options.h"

static double clock_seconds(clockid_t clock)
{
    struct timespec time;
    return clock_gettime(clock, &time) ? 0 : (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

uint64_t now_nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

static void take_machine(usage_t *usage, double tick)
{
    char line[1024];
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        int cpu;
        unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
        if (sscanf(line, "cpu%d %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &user, &nice, &system, &idle, &iowait,
                   &irq, &softirq, &steal) != 9 || cpu >= MAX_CPUS)
            continue;
        usage->busy[cpu] = (double)(user + nice + system + irq + softirq) * tick;
        usage->stolen[cpu] = (double)steal * tick;
        if (cpu >= usage->cpus) usage->cpus = cpu + 1;
    }
    fclose(file);
}

static void take_server(usage_t *usage, pid_t pid, double tick)
{
    char line[1024];
    clockid_t clock;
    if (!clock_getcpuclockid(pid, &clock)) usage->servers += clock_seconds(clock);
    snprintf(line, sizeof line, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(line, "r");
    if (!file) return;
    unsigned long long user, system;
    char *end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL; /* of the name, which may hold anything */
    if (end && sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2) {
        usage->servers_user += (double)user * tick;
        usage->servers_system += (double)system * tick;
    }
    fclose(file);
}

void usage_take(usage_t *usage)
{
    double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    memset(usage, 0, sizeof *usage);
    take_machine(usage, tick);
    for (int i = 0; i < options.servers; i++) take_server(usage, options.server[i], tick);
    usage->own = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    usage->at = now_nanoseconds();
}

void usage_print(FILE *file, const usage_t *before, const usage_t *after, double busy)
{
    double user = after->servers_user - before->servers_user, system = after->servers_system - before->servers_system;
    fprintf(file, "\"seconds\":%.6f,\"own_cpu\":%.6f,\"own_busy\":%.6f,\"server_cpu\":%.6f,\"server_system\":%.4f",
            (double)(after->at - before->at) * 1e-9, after->own - before->own, busy, after->servers - before->servers,
            user + system > 0 ? system / (user + system) : 0.0);
    fprintf(file, ",\"cpu_busy\":[");
    for (int i = 0; i < after->cpus; i++) fprintf(file, "%s%.2f", i ? "," : "", after->busy[i] - before->busy[i]);
    fprintf(file, "],\"cpu_stolen\":[");
    for (int i = 0; i < after->cpus; i++) fprintf(file, "%s%.2f", i ? "," : "", after->stolen[i] - before->stolen[i]);
    fprintf(file, "]");
}
