#include "kiln_runtime.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

#ifndef KILN_NO_THREADS
#include <sched.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
/* Whether the system keeps the registers of AVX, or of AVX-512, when it switches threads (XCR0). */
static int keeps(unsigned mask) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & mask) == mask;
}

static int has(const kiln_feature *feature) {
  unsigned words[4];
  if (!__get_cpuid_count(feature->where, feature->sub, &words[0], &words[1], &words[2], &words[3])) return 0;
  if (!(words[feature->word] >> feature->bit & 1)) return 0;
  if (!strncmp(feature->name, "avx512", 6)) return keeps(0xe6);
  return strncmp(feature->name, "avx", 3) || keeps(0x6);
}
#elif defined(__linux__)
static int has(const kiln_feature *feature) { return getauxval(feature->where) >> feature->bit & 1; }
#else
static int has(const kiln_feature *feature) { return feature != NULL; }
#endif

const char *kiln_lacks(const kiln_feature *features, int count) {
  for (int i = 0; i < count; i++)
    if (!has(&features[i])) return features[i].name;
  return NULL;
}

/* What the calling thread works for. */
static KILN_LOCAL kiln_instance *kiln_current;
static KILN_LOCAL kiln_scratch *kiln_own;

void kiln_enter(kiln_instance *instance) {
  kiln_current = instance;
  kiln_own = instance ? &instance->scratch[0] : NULL;
}

void kiln_lend(void *memory, size_t bytes) { *kiln_own = (kiln_scratch){memory, bytes, 0}; }

/* The three functions that kernels call, by pointers of TVM's names: LLVM's code has those too, weak and empty,
 * so these must not be weak. */

static void *allocate(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  size_t size = KILN_ALIGNED(bytes);
  if (!kiln_own || kiln_own->size - kiln_own->used < size) return NULL;
  void *found = kiln_own->base + kiln_own->used;
  kiln_own->used += size;
  return found;
}

static int release(int device_type, int device_id, void *pointer) {
  (void)device_type, (void)device_id;
  kiln_own->used = (size_t)((unsigned char *)pointer - kiln_own->base);
  return 0;
}

#ifdef KILN_NO_THREADS

static int launch(kiln_task task, void *data, int tasks) {
  kiln_group group = {NULL, tasks > 0 ? tasks : 1};
  for (int i = 0; i < group.tasks; i++)
    if (task(i, &group, data)) return -1;
  return 0;
}

int kiln_processors(void) { return 1; }

int kiln_start(kiln_instance *instance, int threads, unsigned char *scratch, size_t scratch_bytes) {
  memset(instance, 0, sizeof *instance);
  if (threads > 1) {
    snprintf(instance->error, sizeof instance->error, "expected 1 thread of a library without threads, got %d", threads);
    return -1;
  }
  (void)scratch, (void)scratch_bytes;
  instance->threads = 1;
  return 0;
}

void kiln_stop(kiln_instance *instance) { (void)instance; }

#else

/* Looks for work, or for the others' end, before a thread sleeps or gives way: some tens of microseconds. */
enum { SPINS = 20000 };

static void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

int kiln_processors(void) {
  long found = sysconf(_SC_NPROCESSORS_ONLN);
  return found < 1 ? 1 : found > KILN_MAX_THREADS ? KILN_MAX_THREADS : (int)found;
}

/* Do every task that belongs to a thread: where there are more tasks than threads, several. */
static void work(kiln_instance *instance, int number) {
  for (int i = number; i < instance->group.tasks; i += instance->threads)
    if (instance->task(i, &instance->group, instance->data)) atomic_store(&instance->failed, 1);
}

static int launch(kiln_task task, void *data, int tasks) {
  kiln_instance *instance = kiln_current;
  instance->task = task;
  instance->data = data;
  instance->group = (kiln_group){NULL, tasks > 0 ? tasks : instance->threads};
  atomic_store_explicit(&instance->failed, 0, memory_order_relaxed);
  if (instance->threads > 1) {
    atomic_store(&instance->running, instance->threads - 1);
    atomic_fetch_add(&instance->round, 1);
    if (atomic_load(&instance->asleep)) {
      pthread_mutex_lock(&instance->lock);
      pthread_cond_broadcast(&instance->wake);
      pthread_mutex_unlock(&instance->lock);
    }
  }
  work(instance, 0);
  for (int spins = 0; instance->threads > 1 && atomic_load(&instance->running);)
    if (++spins < SPINS) pause_a_little();
    else sched_yield();
  return atomic_load(&instance->failed) ? -1 : 0;
}

/* Wait until the round is another than `seen`; return it. */
static unsigned next_round(kiln_instance *instance, unsigned seen) {
  for (int spins = 0; spins < SPINS; spins++) {
    unsigned now = atomic_load_explicit(&instance->round, memory_order_acquire);
    if (now != seen) return now;
    pause_a_little();
  }
  pthread_mutex_lock(&instance->lock);
  atomic_fetch_add(&instance->asleep, 1);
  while (atomic_load(&instance->round) == seen) pthread_cond_wait(&instance->wake, &instance->lock);
  atomic_fetch_sub(&instance->asleep, 1);
  pthread_mutex_unlock(&instance->lock);
  return atomic_load(&instance->round);
}

static void *thread_main(void *argument) {
  kiln_thread *self = argument;
  kiln_instance *instance = self->owner;
  kiln_current = instance;
  kiln_own = &instance->scratch[self->number];
  unsigned seen = 0;
  for (;;) {
    seen = next_round(instance, seen);
    if (instance->ending) return NULL;
    kiln_own->used = 0;
    work(instance, self->number);
    atomic_fetch_sub(&instance->running, 1);
  }
}

int kiln_start(kiln_instance *instance, int threads, unsigned char *scratch, size_t scratch_bytes) {
  memset(instance, 0, sizeof *instance);
  if (threads < 1 || threads > KILN_MAX_THREADS) {
    snprintf(instance->error, sizeof instance->error, "expected 1 to %d threads, got %d", KILN_MAX_THREADS, threads);
    return -1;
  }
  instance->threads = threads;
  pthread_mutex_init(&instance->lock, NULL);
  pthread_cond_init(&instance->wake, NULL);
  for (int i = 1; i < threads; i++) {
    kiln_thread *thread = &instance->thread[i];
    thread->owner = instance;
    thread->number = i;
    instance->scratch[i] = (kiln_scratch){scratch + (size_t)(i - 1) * scratch_bytes, scratch_bytes, 0};
    int reason = pthread_create(&thread->handle, NULL, thread_main, thread);
    if (reason) {
      snprintf(instance->error, sizeof instance->error, "cannot start thread %d of %d: %s", i + 1, threads, strerror(reason));
      kiln_stop(instance);
      return -1;
    }
    instance->started++;
  }
  return 0;
}

void kiln_stop(kiln_instance *instance) {
  instance->ending = 1;
  pthread_mutex_lock(&instance->lock);
  atomic_fetch_add(&instance->round, 1);
  pthread_cond_broadcast(&instance->wake);
  pthread_mutex_unlock(&instance->lock);
  for (int i = 1; i <= instance->started; i++) pthread_join(instance->thread[i].handle, NULL);
  pthread_cond_destroy(&instance->wake);
  pthread_mutex_destroy(&instance->lock);
}

#endif

/* Never written to: what is pointed at is the same for all instances. */
int (*__TVMBackendParallelLaunch)(kiln_task, void *, int) = launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;
