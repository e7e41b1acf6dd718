#include "histogram.h"

static unsigned index_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS) return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return ((shift + 1) << HISTOGRAM_BITS) + (unsigned)((value >> shift) - HISTOGRAM_STEPS);
}

/* The middle of a step. */
static uint64_t value_of(unsigned index)
{
    if (index < HISTOGRAM_STEPS) return index;
    unsigned shift = (index >> HISTOGRAM_BITS) - 1;
    uint64_t low = ((uint64_t)(index & (HISTOGRAM_STEPS - 1)) + HISTOGRAM_STEPS) << shift;
    return low + ((1ull << shift) >> 1);
}

void histogram_add(histogram_t *histogram, uint64_t nanoseconds)
{
    histogram->step[index_of(nanoseconds)]++;
    histogram->count++;
    histogram->sum += (double)nanoseconds;
    if (nanoseconds > histogram->max) histogram->max = nanoseconds;
}

static double percentile(const histogram_t *histogram, double percent)
{
    uint64_t wanted = (uint64_t)(percent / 100 * (double)histogram->count + 0.5), seen = 0;
    if (wanted < 1) wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_SIZE; i++) {
        seen += histogram->step[i];
        if (seen < wanted) continue;
        uint64_t value = value_of(i);
        return (double)(value < histogram->max ? value : histogram->max) * 1e-9;
    }
    return (double)histogram->max * 1e-9;
}

void histogram_print(FILE *file, const char *name, const histogram_t *histogram)
{
    fprintf(file, "\"%s\":{\"p50\":%.9f,\"p99\":%.9f,\"p999\":%.9f,\"max\":%.9f,\"mean\":%.9f}", name,
            percentile(histogram, 50), percentile(histogram, 99), percentile(histogram, 99.9),
            (double)histogram->max * 1e-9, histogram->count ? histogram->sum / (double)histogram->count * 1e-9 : 0.0);
}
