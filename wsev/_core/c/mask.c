/* Masking by the widest XOR at hand: 64-byte steps where the processor has them (chosen at run time), 16-byte steps of
   the architecture's baseline (SSE2, NEON), then words and bytes.  Each step is a multiple of 4 bytes long, so that the
   key, turned once to fit the offset, fits them all. */

#include "mask.h"

#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define HIGH_BITS UINT64_C(0x8080808080808080)

#if defined(__SSE2__) && defined(__GNUC__)

/* Masks as many whole steps of 64 bytes as there are; returns the bytes done and sets *high if any is not ASCII. */
__attribute__((target("avx2"))) static size_t
mask_steps_avx2(uint8_t *dst, const uint8_t *src, size_t size, uint32_t key, int *high)
{
    const __m256i keys = _mm256_set1_epi32((int)key);
    __m256i seen = _mm256_setzero_si256();
    size_t done = 0;
    for (; size - done >= 64; done += 64) {
        __m256i first = _mm256_loadu_si256((const __m256i *)(src + done));
        __m256i second = _mm256_loadu_si256((const __m256i *)(src + done + 32));
        first = _mm256_xor_si256(first, keys);
        second = _mm256_xor_si256(second, keys);
        _mm256_storeu_si256((__m256i *)(dst + done), first);
        _mm256_storeu_si256((__m256i *)(dst + done + 32), second);
        seen = _mm256_or_si256(seen, _mm256_or_si256(first, second));
    }
    *high |= _mm256_movemask_epi8(seen) != 0;
    return done;
}

static size_t (*mask_steps)(uint8_t *, const uint8_t *, size_t, uint32_t, int *) = NULL;

void
mask_choose(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        mask_steps = mask_steps_avx2;
}

#else

void
mask_choose(void)
{
}

#endif

int
mask_bytes(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t key[4], size_t offset)
{
    const uint8_t turned[4] = {key[offset & 3], key[(offset + 1) & 3], key[(offset + 2) & 3], key[(offset + 3) & 3]};
    uint32_t key32;
    size_t done = 0;
    int high = 0;
    memcpy(&key32, turned, 4);

#if defined(__SSE2__)
#if defined(__GNUC__)
    /* From 256 bytes on: below, the call and the wider registers' warming up cost more than they gain. */
    if (size >= 256 && mask_steps != NULL)
        done = mask_steps(dst, src, size, key32, &high);
#endif
    if (size - done >= 16) {
        const __m128i keys = _mm_set1_epi32((int)key32);
        __m128i seen = _mm_setzero_si128();
        for (; size - done >= 16; done += 16) {
            __m128i block = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + done)), keys);
            _mm_storeu_si128((__m128i *)(dst + done), block);
            seen = _mm_or_si128(seen, block);
        }
        high |= _mm_movemask_epi8(seen) != 0;
    }
#elif defined(__ARM_NEON)
    if (size >= 16) {
        const uint8x16_t keys = vreinterpretq_u8_u32(vdupq_n_u32(key32));
        uint8x16_t seen = vdupq_n_u8(0);
        for (; size - done >= 16; done += 16) {
            uint8x16_t block = veorq_u8(vld1q_u8(src + done), keys);
            vst1q_u8(dst + done, block);
            seen = vorrq_u8(seen, block);
        }
        uint64x2_t halves = vreinterpretq_u64_u8(seen);
        high |= ((vgetq_lane_u64(halves, 0) | vgetq_lane_u64(halves, 1)) & HIGH_BITS) != 0;
    }
#endif

    const uint64_t key64 = (uint64_t)key32 << 32 | key32;
    uint64_t word, words_seen = 0;
    for (; size - done >= 8; done += 8) {
        memcpy(&word, src + done, 8);
        word ^= key64;
        memcpy(dst + done, &word, 8);
        words_seen |= word;
    }
    uint8_t seen = 0;
    for (size_t i = 0; done < size; done++, i++) {
        dst[done] = src[done] ^ turned[i & 3];
        seen |= dst[done];
    }
    return high | ((words_seen & HIGH_BITS) != 0) | (seen >> 7);
}
