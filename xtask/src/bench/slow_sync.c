/* A disk whose fdatasync takes longer: put before libc's with LD_PRELOAD. SLOW_SYNC_US says by how many microseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int fdatasync(int file)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(file);
    const char *text = getenv("SLOW_SYNC_US");
    long microseconds = text ? atol(text) : 0;
    struct timespec longer = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&longer, NULL);
    return result;
}
