/*
 * The histogram of perf/load. Goal: every percentile it reports is within its promised error of the
 * exact one, over the whole range of values. Method: random samples of every magnitude, sorted,
 * against the histogram's answers.
 */
#include "test/harness.h"

#include <stdlib.h>

#include "perf/load_histogram.h"

/* The promise: half a bucket, 1/512 of the value. */
static const double error_max = 1.0 / 512;

static const double percents[] = {0.001, 1, 10, 50, 90, 99, 99.9, 99.99, 100};

enum { PERCENTS_COUNT = sizeof(percents) / sizeof(percents[0]) };

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static bool is_near(uint64_t got, uint64_t exact)
{
	double difference = got > exact ? (double)(got - exact) : (double)(exact - got);

	return difference <= (double)exact * error_max;
}

/* Nearest rank, by its definition. */
static uint64_t percentile_exact(const uint64_t *sorted, unsigned count, double percent)
{
	unsigned below = 0;

	while (below < count - 1 && (double)(below + 1) * 100 < percent * count - 1e-3)
		below++;
	return sorted[below];
}

static struct histogram histogram;

Test(histogram, every_value_lies_in_a_bucket_near_it)
{
	uint64_t seed = harness_seed();
	unsigned i;

	for (i = 0; i < 1000000 / HARNESS_SLOWDOWN; i++) {
		uint64_t value = harness_random(&seed) >> (harness_random(&seed) % 64);
		unsigned index = histogram_index(value);

		cr_assert_lt(index, (unsigned)HISTOGRAM_BUCKETS);
		cr_assert(is_near(histogram_value(index), value), "%llu in bucket %u",
			(unsigned long long)value, index);
	}
	cr_assert_eq(histogram_index(0), 0u);
	cr_assert_eq(histogram_index(UINT64_MAX), (unsigned)HISTOGRAM_BUCKETS - 1);
}

Test(histogram, buckets_are_in_the_order_of_their_values)
{
	unsigned i;

	for (i = 0; i < HISTOGRAM_BUCKETS; i++) {
		cr_assert_eq(histogram_index(histogram_value(i)), i);
		if (i > 0)
			cr_assert_gt(histogram_value(i), histogram_value(i - 1));
	}
}

Test(histogram, percentiles_are_those_of_the_sorted_samples)
{
	static const unsigned counts[] = {1, 2, 3, 10, 999, 1000, 1001, 20000};
	static uint64_t samples[20000];
	uint64_t seed = harness_seed();
	unsigned i, j;

	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		memset(&histogram, 0, sizeof(histogram));
		for (j = 0; j < counts[i]; j++) {
			/* Latencies: magnitudes from 1 us to 1000 s. */
			samples[j] =
				1000 + (harness_random(&seed) >> (24 + harness_random(&seed) % 30));
			histogram_record(&histogram, samples[j]);
		}
		qsort(samples, counts[i], sizeof(samples[0]), compare);
		for (j = 0; j < PERCENTS_COUNT; j++) {
			uint64_t got = histogram_percentile(&histogram, percents[j]);
			uint64_t exact = percentile_exact(samples, counts[i], percents[j]);

			cr_expect(is_near(got, exact), "p%g of %u: %llu, exactly %llu", percents[j],
				counts[i], (unsigned long long)got, (unsigned long long)exact);
		}
		cr_expect_eq(histogram_percentile(&histogram, 100), samples[counts[i] - 1]);
		cr_expect_eq(histogram.min_ns, samples[0]);
	}
}

Test(histogram, percentiles_never_leave_minimum_and_maximum)
{
	unsigned i;

	memset(&histogram, 0, sizeof(histogram));
	cr_assert_eq(histogram_percentile(&histogram, 50), 0u, "of nothing");
	/* Two values of one bucket: its middle is neither. */
	histogram_record(&histogram, 1000000);
	histogram_record(&histogram, 1000001);
	cr_assert_eq(histogram_index(1000000), histogram_index(1000001));
	for (i = 0; i < PERCENTS_COUNT; i++) {
		cr_expect_geq(histogram_percentile(&histogram, percents[i]), 1000000u);
		cr_expect_leq(histogram_percentile(&histogram, percents[i]), 1000001u);
	}
	cr_expect(histogram_mean(&histogram) == 1000000.5);
}

Test(histogram, one_slow_sample_in_a_thousand_is_p999_and_no_earlier)
{
	unsigned i;

	memset(&histogram, 0, sizeof(histogram));
	for (i = 0; i < 9990; i++)
		histogram_record(&histogram, 100);
	for (i = 0; i < 10; i++)
		histogram_record(&histogram, 5000000);
	cr_expect_eq(histogram_percentile(&histogram, 99.9), 100u);
	cr_expect(is_near(histogram_percentile(&histogram, 99.91), 5000000));
}
