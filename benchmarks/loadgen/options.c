#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

options_t options = {
    .connections = 1, .depth = 1, .size = 64, .seconds = 1, .warmup = 0.3, .cpu = -1,
};

static const char USAGE[] =
    "usage: loadgen echo|broadcast|churn|hold --port PORT [options]\n"
    "  echo       each connection sends DEPTH messages in one write, awaits all answers, and again\n"
    "  broadcast  one connection sends, every connection awaits each message; DEPTH of them are under way\n"
    "  churn      connect, opening handshake, one echo, closing handshake, end of TCP, and again\n"
    "  hold       open, and obey stdin: 'begin' echoes on all connections, 'end' stops that; end of file ends all\n"
    "  --connections N  --idle N  --depth N  --size BYTES  --seconds S  --warmup S\n"
    "  --text  --tls  --compressed  --verify  --cpu CPU  --server-pid PID (repeatable)\n"
    "Only to 127.0.0.1.  Results are JSON objects, one a line, on stdout; seconds and bytes throughout.\n";

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "loadgen: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static _Noreturn void wrong_usage(const char *what)
{
    fprintf(stderr, "loadgen: %s\n\n%s", what, USAGE);
    exit(2);
}

static double number(const char *name, const char *value, double least)
{
    char *end;
    double result = value ? strtod(value, &end) : 0;
    if (!value || *end || end == value || result < least) {
        char message[128];
        snprintf(message, sizeof message, "%s needs a number of at least %g", name, least);
        wrong_usage(message);
    }
    return result;
}

static mode_name mode_of(const char *name)
{
    static const char *const names[] = { "echo", "broadcast", "churn", "hold" };
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i])) return (mode_name)i;
    wrong_usage("no such mode");
}

/* Whether the option takes a value. */
static bool read_one(const char *name, const char *value)
{
    if (!strcmp(name, "--text")) return options.is_text = true, false;
    if (!strcmp(name, "--tls")) return options.is_tls = true, false;
    if (!strcmp(name, "--compressed")) return options.is_compressed = true, false;
    if (!strcmp(name, "--verify")) return options.is_verifying = true, false;
    if (!strcmp(name, "--port")) options.port = (uint16_t)number(name, value, 1);
    else if (!strcmp(name, "--connections")) options.connections = (int)number(name, value, 1);
    else if (!strcmp(name, "--idle")) options.idle = (int)number(name, value, 0);
    else if (!strcmp(name, "--depth")) options.depth = (int)number(name, value, 1);
    else if (!strcmp(name, "--size")) options.size = (size_t)number(name, value, 0);
    else if (!strcmp(name, "--seconds")) options.seconds = number(name, value, 0.01);
    else if (!strcmp(name, "--warmup")) options.warmup = number(name, value, 0);
    else if (!strcmp(name, "--cpu")) options.cpu = (int)number(name, value, 0);
    else if (!strcmp(name, "--server-pid")) {
        if (options.servers == MAX_SERVERS) wrong_usage("too many --server-pid");
        options.server[options.servers++] = (pid_t)number(name, value, 1);
    } else wrong_usage(name);
    return true;
}

void options_read(int argc, char **argv)
{
    if (argc < 2) wrong_usage("no mode");
    options.mode = mode_of(argv[1]);
    for (int i = 2; i < argc; i++)
        i += read_one(argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    if (!options.port) wrong_usage("--port is needed");
    if (options.mode == CHURN || options.mode == HOLD) options.depth = 1;
}
