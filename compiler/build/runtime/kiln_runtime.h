/* What a compiled model needs beside its kernels: threads, scratch memory, words about errors.
 *
 * Nothing here is shared between instances but code, so several can run side by side; several models that are
 * linked into one program share it, too, for a linker takes it from the first archive only. After kiln_start
 * nothing is allocated. Defined KILN_NO_THREADS, there is one thread, the caller's, and no pthread.
 */
#ifndef KILN_RUNTIME_H
#define KILN_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef KILN_NO_THREADS
#define KILN_LOCAL
#else
#define KILN_LOCAL _Thread_local
#include <pthread.h>
#include <stdatomic.h>
#endif

#define KILN_MIN(a, b) ((a) < (b) ? (a) : (b))
#define KILN_MAX(a, b) ((a) > (b) ? (a) : (b))
#define KILN_ALIGNMENT 64
#define KILN_MAX_THREADS 64
#define KILN_ERROR 400
#define KILN_ALIGNED(bytes) (((size_t)(bytes) + KILN_ALIGNMENT - 1) / KILN_ALIGNMENT * KILN_ALIGNMENT)

/* A part of a kernel, in TVM's words: which task it is, how many there are, what the kernel handed over. */
typedef struct {
  void *unused;
  int32_t tasks;
} kiln_group;
typedef int (*kiln_task)(int task, kiln_group *group, void *data);

/* The memory of one thread that kernels take what they need from, and give it back in reverse. */
typedef struct {
  unsigned char *base;
  size_t size, used;
} kiln_scratch;

struct kiln_instance;

#ifndef KILN_NO_THREADS
typedef struct {
  struct kiln_instance *owner;
  pthread_t handle;
  int number;
} kiln_thread;
#endif

typedef struct kiln_instance {
  int threads;
  kiln_scratch scratch[KILN_MAX_THREADS];
  char error[KILN_ERROR];
#ifndef KILN_NO_THREADS
  kiln_thread thread[KILN_MAX_THREADS];
  int started;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  kiln_task task;
  void *data;
  kiln_group group;
  atomic_uint round;   /* changes when there is work, or the end */
  atomic_int running;  /* threads that have not finished this round */
  atomic_int asleep;
  atomic_int failed;
  int ending;
#endif
} kiln_instance;

/* A feature of the CPU, and where it is reported: leaf, subleaf, register and bit of CPUID on x86; else the key of
 * getauxval and a bit. */
typedef struct {
  const char *name;
  unsigned where, sub, word, bit;
} kiln_feature;

/* Return the name of one of `count` features that this CPU lacks, NULL if it has all. */
const char *kiln_lacks(const kiln_feature *features, int count);

/* Weights, and the mapping of the file that they are from, if they are. */
typedef struct {
  const unsigned char *data;
  void *mapping;
  size_t mapped;
} kiln_weights;

/* The weights of a model: a file's name, bytes and their SHA-256. */
typedef struct {
  const char *name;
  size_t bytes;
  unsigned char digest[32];
} kiln_expected;

/* Map a file of weights read-only: `path`, or if that is NULL the one of their name beside the library or program
 * that has `code`. It ends with the digest of the weights. Return 0, or say in `error` why not. */
int kiln_map(kiln_weights *weights, const kiln_expected *expected, const char *path, const void *code, char *error);

/* Undo kiln_map, or nothing. */
void kiln_unmap(kiln_weights *weights);

/* Return 0 if the weights have their digest, or say in `error` that they have not. */
int kiln_check_weights(const kiln_weights *weights, const kiln_expected *expected, char *error);

/* Start threads; `scratch` has `scratch_bytes`, a multiple of KILN_ALIGNMENT, for each but the caller's. Return
 * 0, or say why not in `error`. */
int kiln_start(kiln_instance *instance, int threads, unsigned char *scratch, size_t scratch_bytes);

/* End all threads. */
void kiln_stop(kiln_instance *instance);

/* Kernels that this thread calls now belong to `instance`; NULL when it has done. */
void kiln_enter(kiln_instance *instance);

/* Give the kernel that this thread calls next memory to take from. */
void kiln_lend(void *memory, size_t bytes);

/* What kernels call, by pointers of TVM's names. */
extern int (*__TVMBackendParallelLaunch)(kiln_task task, void *data, int tasks);
extern void *(*__TVMBackendAllocWorkspace)(int device_type, int device_id, uint64_t bytes, int code, int bits);
extern int (*__TVMBackendFreeWorkspace)(int device_type, int device_id, void *pointer);

/* Threads that run at once by default: as many as there are processors. */
int kiln_processors(void);

#endif
