/* What disturbs a stream of weights: `streaming_patterns MEBIBYTES THREADS RUNS`.
 *
 * Threads read chunks of a buffer in pieces of 576 bytes, as a one-row product reads four blocks of
 * Q4_K, and print the best run in gigabytes a second for each pattern: with chunks of 64 KiB by turns
 * and with one long run a thread; alone and with 1 KiB of activations read from the first-level cache
 * beside each piece; asking ahead into the first- or the second-level cache. Of docs/benchmarks/
 * streaming.md. Compile with -O3 -march=native -pthread on a processor with AVX-512 VNNI. */

#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PIECE = 576, THREADS_MAX = 64 };

struct pattern {
    const char *name;
    size_t chunk; /* bytes taken at once; 0 for a run of one thread's whole share */
    int beside;   /* whether activations are read */
    int level;    /* into which cache is asked ahead: 0 none, 1 or 2 */
    size_t ahead;
};

static const struct pattern patterns[] = {
    {"chunks of 64 KiB by turns", 64 << 10, 0, 0, 0},
    {"runs", 0, 0, 0, 0},
    {"runs, activations beside", 0, 1, 0, 0},
    {"runs, activations beside, L1 4 KiB ahead", 0, 1, 1, 4 << 10},
    {"runs, activations beside, L2 4 KiB ahead", 0, 1, 2, 4 << 10},
    {"runs, activations beside, L2 8 KiB ahead", 0, 1, 2, 8 << 10},
    {"runs, activations beside, L2 16 KiB ahead", 0, 1, 2, 16 << 10},
    {"runs, activations beside, L2 64 KiB ahead", 0, 1, 2, 64 << 10},
};

static char activations[2048] __attribute__((aligned(64)));
static const char *bytes;
static size_t length;
static long threads;
static const struct pattern *pattern;

static __m512i piece(const char *at, const char *x, __m512i sum) {
    for (int line = 0; line < PIECE; line += 64) {
        if (pattern->level == 1) _mm_prefetch(at + pattern->ahead + line, _MM_HINT_T0);
        if (pattern->level == 2) _mm_prefetch(at + pattern->ahead + line, _MM_HINT_T1);
    }
    for (int block = 0; block < 4; block++) {
        const __m512i low = _mm512_loadu_si512(at + 144 * block + 16);
        const __m512i high = _mm512_loadu_si512(at + 144 * block + 80);
        sum = _mm512_xor_si512(sum, _mm512_xor_si512(low, high));
        if (!pattern->beside) continue;
        for (int part = 0; part < 4; part++) {
            const __m512i codes = _mm512_load_si512(x + 256 * block + 64 * part);
            sum = _mm512_dpbusd_epi32(sum, part & 1 ? high : low, codes);
        }
    }
    return sum;
}

static void *read_share(void *argument) {
    const long id = (long)argument;
    const size_t share = length / (size_t)threads;
    const size_t chunk = pattern->chunk ? pattern->chunk : share;
    const size_t step = pattern->chunk ? chunk * (size_t)threads : length;
    __m512i sum = _mm512_setzero_si512();
    for (size_t first = (size_t)id * chunk; first + chunk <= length; first += step)
        for (size_t at = 0; at + PIECE <= chunk; at += PIECE)
            sum = piece(bytes + first + at, activations + at / PIECE % 2 * 1024, sum);
    return (void *)(long)_mm512_reduce_add_epi32(sum);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    enum { COUNT = sizeof patterns / sizeof *patterns };
    double best[COUNT];
    pthread_t handles[THREADS_MAX];
    if (argc != 4) return 2;
    length = strtoull(argv[1], NULL, 10) << 20;
    threads = strtol(argv[2], NULL, 10);
    const long runs = strtol(argv[3], NULL, 10);
    if (length == 0 || threads < 1 || threads > THREADS_MAX) return 2;
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    memset(memory, 1, length);
    bytes = memory;
    for (int each = 0; each < COUNT; each++) best[each] = 1e30;
    for (long run = 0; run < runs; run++)
        for (int each = 0; each < COUNT; each++) {
            pattern = &patterns[each];
            const double began = seconds();
            for (long id = 0; id < threads; id++)
                if (pthread_create(&handles[id], NULL, read_share, (void *)id) != 0) return 1;
            for (long id = 0; id < threads; id++) pthread_join(handles[id], NULL);
            const double took = seconds() - began;
            if (took < best[each]) best[each] = took;
        }
    for (int each = 0; each < COUNT; each++)
        printf("%-44s %6.1f\n", patterns[each].name, (double)length / best[each] / 1e9);
    return 0;
}
