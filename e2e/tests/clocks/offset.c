/* A machine whose time of day is wrong, for one process: LD_PRELOAD this, and say by how many seconds in CLOCK_OFFSET_SECONDS.

   Only the time of day: the steady clock of such a machine is right. Waits that end at a time of day, which librdkafka's and RocksDB's do, are told the
   kernel in its own time. (libfaketime does not know the C11 call among them, by which librdkafka waits: its threads then sleep for hours.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static time_t offset(void) {
    const char *seconds = getenv("CLOCK_OFFSET_SECONDS");
    return seconds ? (time_t)atol(seconds) : 0;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return (int)failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}

/* The real call of this name, with the end of the wait in the kernel's time. */
#define WAIT(name, cond_type, mutex_type)                                               \
    int name(cond_type *cond, mutex_type *mutex, const struct timespec *until) {        \
        typedef int wait_until(cond_type *, mutex_type *, const struct timespec *);     \
        static wait_until *real;                                                        \
        struct timespec kernels = *until;                                               \
        if (!real) real = (wait_until *)dlsym(RTLD_NEXT, #name);                        \
        kernels.tv_sec -= offset();                                                     \
        return real(cond, mutex, &kernels);                                             \
    }

WAIT(pthread_cond_timedwait, pthread_cond_t, pthread_mutex_t)
WAIT(cnd_timedwait, cnd_t, mtx_t)
