/* Durations in nanoseconds, counted in steps of 1.6 %: 64 to each power of two. */

#ifndef LOADGEN_HISTOGRAM_H
#define LOADGEN_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_STEPS (1u << HISTOGRAM_BITS)
#define HISTOGRAM_SIZE ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEPS)

typedef struct {
    uint64_t count;
    uint64_t max;
    double sum;
    uint32_t step[HISTOGRAM_SIZE];
} histogram_t;

void histogram_add(histogram_t *histogram, uint64_t nanoseconds);

/* "name":{"p50":…,"p99":…,"p999":…,"max":…,"mean":…}, in seconds. */
void histogram_print(FILE *file, const char *name, const histogram_t *histogram);

#endif
