/* Streaming read bandwidth, beside our own probe: `streaming_read MEBIBYTES THREADS RUNS`.
 *
 * Each thread sums its part of a buffer that is larger than the caches, in huge pages where the system
 * has them. Prints the best run in bytes a second. Compile with -O3 -march=native. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { THREADS_MAX = 1024, LANES = 64 };

struct part {
    const uint64_t *words;
    size_t count;
    uint64_t sum;
};

static void *sum(void *argument) {
    struct part *part = argument;
    uint64_t lanes[LANES] = {0};
    for (size_t at = 0; at + LANES <= part->count; at += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += part->words[at + lane];
    for (int lane = 0; lane < LANES; lane++) part->sum += lanes[lane];
    return NULL;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    static pthread_t threads[THREADS_MAX];
    static struct part parts[THREADS_MAX];
    if (argc != 4) return 2;
    const size_t bytes = strtoull(argv[1], NULL, 10) << 20;
    const long count = strtol(argv[2], NULL, 10), runs = strtol(argv[3], NULL, 10);
    if (bytes == 0 || count < 1 || count > THREADS_MAX) return 2;
    uint64_t *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) return 1;
    madvise(words, bytes, MADV_HUGEPAGE);
    memset(words, 1, bytes);
    const size_t each = bytes / sizeof *words / (size_t)count;
    double best = 1e30;
    uint64_t all = 0;
    for (long run = 0; run < runs; run++) {
        const double began = seconds();
        for (long id = 0; id < count; id++) {
            parts[id] = (struct part){.words = words + (size_t)id * each, .count = each, .sum = 0};
            if (pthread_create(&threads[id], NULL, sum, &parts[id]) != 0) return 1;
        }
        for (long id = 0; id < count; id++) {
            pthread_join(threads[id], NULL);
            all += parts[id].sum;
        }
        const double took = seconds() - began;
        if (took < best) best = took;
    }
    /* The sum is used, so that nothing may leave it out. */
    printf("%.0f%s\n", (double)(each * (size_t)count * sizeof *words) / best, all == 0 ? " " : "");
    return 0;
}
