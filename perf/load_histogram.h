/*
 * load_histogram.h: a log-linear histogram of nanoseconds: constant memory, constant time, every
 * value up to 2^64 - 1.
 *
 * Each power of two is cut into 256 equal buckets (values below 256 have a bucket each). A bucket
 * is at most 1/256 of its value wide and reports its middle, so a percentile is within 0.2 % of the
 * sample at that rank. Minimum and maximum are exact, and every percentile lies between them.
 *
 * Pure: no clock, no allocation, no thread safety. Zero is a valid, empty histogram.
 */
#ifndef WF_PERF_LOAD_HISTOGRAM_H
#define WF_PERF_LOAD_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

enum {
	HISTOGRAM_SPLIT_BITS = 8,
	HISTOGRAM_SPLIT = 1 << HISTOGRAM_SPLIT_BITS,
	HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SPLIT_BITS + 1) * HISTOGRAM_SPLIT,
};

struct histogram {
	uint64_t count;
	uint64_t min_ns;
	uint64_t max_ns;
	double sum_ns;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_index(uint64_t value_ns)
{
	unsigned shift;

	if (value_ns < HISTOGRAM_SPLIT)
		return (unsigned)value_ns;
	shift = 63u - (unsigned)__builtin_clzll(value_ns) - HISTOGRAM_SPLIT_BITS;
	/* The leading bit of value >> shift is bit 8: it adds the one row that `shift` lacks. */
	return shift * HISTOGRAM_SPLIT + (unsigned)(value_ns >> shift);
}

/* The middle of a bucket. */
static inline uint64_t histogram_value(unsigned index)
{
	unsigned shift;

	if (index < 2 * HISTOGRAM_SPLIT)
		return index;
	shift = index / HISTOGRAM_SPLIT - 1;
	return ((uint64_t)(index - shift * HISTOGRAM_SPLIT) << shift) + ((1ull << shift) >> 1);
}

static inline void histogram_record(struct histogram *histogram, uint64_t value_ns)
{
	if (histogram->count == 0 || value_ns < histogram->min_ns)
		histogram->min_ns = value_ns;
	if (value_ns > histogram->max_ns)
		histogram->max_ns = value_ns;
	histogram->sum_ns += (double)value_ns;
	histogram->bucket[histogram_index(value_ns)]++;
	histogram->count++;
}

static inline double histogram_mean(const struct histogram *histogram)
{
	return histogram->count ? histogram->sum_ns / (double)histogram->count : 0;
}

/* Nearest rank: the smallest value that at least `percent` of the samples do not exceed. */
static inline uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t rank, seen = 0, value_ns;
	double exact;
	unsigned i;

	if (histogram->count == 0)
		return 0;
	/* Rounded up; 99.9 / 100 * 1000 is a hair above 999, and must not become 1000. */
	exact = percent / 100.0 * (double)histogram->count - 1e-6;
	rank = exact > 0 ? (uint64_t)exact + 1 : 1;
	if (rank >= histogram->count)
		return histogram->max_ns;
	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->bucket[i];
		if (seen >= rank && seen > 0)
			break;
	}
	value_ns = histogram_value(i);
	if (value_ns < histogram->min_ns)
		return histogram->min_ns;
	return value_ns < histogram->max_ns ? value_ns : histogram->max_ns;
}

#endif
