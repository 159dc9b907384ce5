/*
 * load_message.c: what a request contains, so that each reply can be checked byte for byte.
 *
 * A message is a slice of one fixed pool of random bytes at an offset drawn from (slot, number),
 * and its first eight bytes are that draw itself. Any two requests differ in their first bytes, a
 * reply shifted by one byte differs nearly everywhere, and making or checking a message is one
 * memcpy or memcmp: the generator must not become the bottleneck. Any byte range can be made on its
 * own, since sockets take and give pieces.
 */
#include "perf/load.h"

#include <string.h>

enum {
	POOL_SIZE = 1 << 18,
	HEAD_SIZE = 8,
};

static unsigned char pool[POOL_SIZE];
static uint64_t pool_seed;

void load_message_init(uint64_t seed)
{
	uint64_t state = load_mix(seed) | 1;
	size_t i;

	pool_seed = seed;
	for (i = 0; i < POOL_SIZE; i++)
		pool[i] = (unsigned char)(load_random(&state) >> 56);
}

static uint64_t message_draw(uint32_t slot, uint64_t number)
{
	return load_mix(load_mix(pool_seed ^ ((uint64_t)slot << 32)) ^ number);
}

/* Calls `piece` for each run of bytes of [from, from + length) that lies together in memory. */
static bool message_walk(uint32_t slot, uint64_t number, size_t from, size_t length,
	bool (*piece)(void *context, size_t at, const void *bytes, size_t length), void *context)
{
	uint64_t draw = message_draw(slot, number);
	size_t done = 0;

	if (from < HEAD_SIZE) {
		size_t part = length < HEAD_SIZE - from ? length : HEAD_SIZE - from;

		if (!piece(context, 0, (const unsigned char *)&draw + from, part))
			return false;
		done = part;
	}
	while (done < length) {
		size_t at = (size_t)(draw + from + done) % POOL_SIZE;
		size_t part = length - done < POOL_SIZE - at ? length - done : POOL_SIZE - at;

		if (!piece(context, done, pool + at, part))
			return false;
		done += part;
	}
	return true;
}

static bool piece_copy(void *context, size_t at, const void *bytes, size_t length)
{
	memcpy((unsigned char *)context + at, bytes, length);
	return true;
}

static bool piece_compare(void *context, size_t at, const void *bytes, size_t length)
{
	return memcmp((unsigned char *)context + at, bytes, length) == 0;
}

void load_message_fill(uint32_t slot, uint64_t number, size_t from, void *to, size_t length)
{
	message_walk(slot, number, from, length, piece_copy, to);
}

bool load_message_equal(
	uint32_t slot, uint64_t number, size_t from, const void *bytes, size_t length)
{
	/* piece_compare only reads through it. */
	void *context = (void *)(uintptr_t)bytes;

	return message_walk(slot, number, from, length, piece_compare, context);
}
