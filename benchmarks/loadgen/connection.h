/* One client connection: TCP, TLS, the opening handshake, frames both ways, the end.
   It knows no mode: what is sent when, and what an answer means, is decided by the hooks of `mode`. */

#ifndef LOADGEN_CONNECTION_H
#define LOADGEN_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "deflate.h"
#include "frames.h"
#include "stream.h"

typedef enum {
    UNUSED,
    CONNECTING, /* TCP */
    SECURING,   /* TLS */
    UPGRADING,  /* HTTP */
    OPEN,
    CLOSING,    /* our Close frame is sent */
    CLOSED,     /* the server's has come; what is left is the end of TCP */
    FAILED,
} state_t;

/* What is being received, between two reads. */
typedef struct {
    uint8_t header[10];
    uint8_t header_size; /* bytes of it that are here */
    bool is_in_frame;    /* the header is complete, the payload is not */
    bool is_final;
    uint8_t opcode;      /* of the frame */
    uint8_t control_size;
    uint8_t control[125];
    uint64_t left;       /* bytes of the frame's payload */
    uint64_t offset;     /* bytes of the message that were here before, as they came */
    bool is_compressed;  /* the message */
    bool keeps_context;  /* the server's compressor has one, so ours must */
    inflater_t *inflater; /* made for the first such message, as is the place where it is collected */
    uint8_t *compressed;
} receiving_t;

typedef struct connection {
    int id;
    state_t state;
    stream_t stream;
    receiving_t receiving;
    char *answer;          /* to the opening handshake, while it is incomplete */
    uint32_t answer_size;
    uint32_t received;     /* messages: of echo since the burst was sent, of broadcast in all */
    uint8_t *frames;       /* `depth` of them; NULL if this one carries no load */
    size_t frames_size;    /* bytes of them */
    uint64_t *tags;        /* of these frames */
    const uint8_t *unsent; /* what the kernel did not take */
    size_t unsent_size;
    uint64_t began;        /* to connect; nanoseconds */
    uint64_t since;        /* the last burst, or Close frame, was sent */
} connection_t;

/* The hooks of a mode; `begin` is called once, when all connections are open (of churn: at once). */
typedef struct {
    void (*begin)(void);
    void (*opened)(connection_t *connection);
    uint64_t (*expected)(const connection_t *connection);               /* tag of the message that comes next */
    void (*message)(connection_t *connection, uint64_t now);            /* a right one came */
    void (*read)(connection_t *connection, uint64_t now);               /* all that had come was looked at */
    void (*ended)(connection_t *connection, uint64_t now);              /* properly, by both sides */
} load_mode;

extern const load_mode *mode;

/* Once, before the first connection. */
void connections_prepare(void);

void connection_open(connection_t *connection);

/* What the kernel does not take at once is sent later; the data must stay. */
void connection_send(connection_t *connection, const uint8_t *data, size_t size);

/* Send the Close frame. */
void connection_close(connection_t *connection);

/* End it, count the error, and tell the first of them on stderr. */
void connection_fail(connection_t *connection, const char *why);

/* Deal with what has come; how many sockets had something.  Waits at most so many milliseconds for it. */
int connections_poll(int milliseconds);

/* In receive.c: the bytes of frames.  After it the connection may have failed. */
void receive(connection_t *connection, const uint8_t *data, size_t size, uint64_t now);

#endif
