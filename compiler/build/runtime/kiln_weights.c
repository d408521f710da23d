/* Where weights come from: a file that is mapped, or the library itself. */
#define _GNU_SOURCE /* dladdr of macOS' dlfcn.h, and mmap */
#include "kiln_runtime.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifndef KILN_NO_FILES
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <dlfcn.h>
#endif

enum { PATH_BYTES = 1024, DIGEST_BYTES = 32 };

/* Write the path of the file that `code` was loaded from, of which the process may know nothing. */
static int file_of(const void *code, char *path) {
  path[0] = 0;
#if defined(__linux__)
  char line[PATH_BYTES + 100];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && !path[0] && fgets(line, sizeof line, maps)) {
    unsigned long long begin, end;
    char *found = strchr(line, '/');
    if (!found || sscanf(line, "%llx-%llx", &begin, &end) != 2) continue;
    if ((uintptr_t)code < begin || (uintptr_t)code >= end) continue;
    found[strcspn(found, "\n")] = 0;
    snprintf(path, PATH_BYTES, "%s", found);
    /* A library may be replaced by a newer one while it runs. */
    char *deleted = strstr(path, " (deleted)");
    if (deleted && !deleted[10]) *deleted = 0;
  }
  if (maps) fclose(maps);
#elif defined(__APPLE__)
  Dl_info info;
  if (dladdr(code, &info)) snprintf(path, PATH_BYTES, "%s", info.dli_fname);
#else
  (void)code;
#endif
  return path[0] != 0;
}

int kiln_map(kiln_weights *weights, const kiln_expected *expected, const char *path, const void *code, char *error) {
  char beside[PATH_BYTES + 256];
  if (!path) {
    char folder[PATH_BYTES];
    char *end = file_of(code, folder) ? strrchr(folder, '/') : NULL;
    if (end) end[1] = 0;
    snprintf(beside, sizeof beside, "%s%s", end ? folder : "", expected->name);
    path = beside;
  }
  struct stat facts = {0};
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || fstat(file, &facts)) {
    snprintf(error, KILN_ERROR, "cannot read the weights '%.250s': %s", path, strerror(errno));
    if (file >= 0) close(file);
    return -1;
  }
  size_t bytes = expected->bytes + DIGEST_BYTES;
  if ((unsigned long long)facts.st_size != bytes) {
    snprintf(error, KILN_ERROR, "the weights '%.250s' are not those of this model: expected %zu bytes, got %lld", path,
             bytes, (long long)facts.st_size);
    close(file);
    return -1;
  }
  void *mapping = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (mapping == MAP_FAILED) {
    snprintf(error, KILN_ERROR, "cannot map the weights '%.250s': %s", path, strerror(errno));
    return -1;
  }
  *weights = (kiln_weights){mapping, mapping, bytes};
  if (!memcmp(weights->data + expected->bytes, expected->digest, DIGEST_BYTES)) return 0;
  snprintf(error, KILN_ERROR, "the weights '%.250s' are not those of this model: their SHA-256 differs", path);
  kiln_unmap(weights);
  return -1;
}

void kiln_unmap(kiln_weights *weights) {
  if (weights->mapping) munmap(weights->mapping, weights->mapped);
}

#else

int kiln_map(kiln_weights *weights, const kiln_expected *expected, const char *path, const void *code, char *error) {
  (void)weights, (void)path, (void)code;
  snprintf(error, KILN_ERROR, "there are no files here to read '%s' from", expected->name);
  return -1;
}

void kiln_unmap(kiln_weights *weights) { (void)weights; }

#endif

/* SHA-256 (FIPS 180-4), for blocks of 64 bytes. */

static uint32_t rotated(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static void add_block(uint32_t state[8], const unsigned char *block) {
  static const uint32_t constants[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
  };
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t low = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t high = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + low + w[i - 7] + high;
  }
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t sum = rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25), choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
    uint32_t first = s[7] + sum + choice + constants[i] + w[i];
    uint32_t other = rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22);
    uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += first;
    s[0] = first + other + majority;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

static void digest_of(const unsigned char *data, size_t bytes, unsigned char digest[32]) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char last[128] = {0};
  size_t whole = bytes / 64 * 64, rest = bytes - whole, padded = rest < 56 ? 64 : 128;
  for (size_t at = 0; at < whole; at += 64) add_block(state, data + at);
  if (rest) memcpy(last, data + whole, rest);
  last[rest] = 0x80;
  for (int i = 0; i < 8; i++) last[padded - 1 - (size_t)i] = (unsigned char)((uint64_t)bytes * 8 >> 8 * i);
  for (size_t at = 0; at < padded; at += 64) add_block(state, last + at);
  for (int i = 0; i < 32; i++) digest[i] = (unsigned char)(state[i / 4] >> (24 - 8 * (i % 4)));
}

int kiln_check_weights(const kiln_weights *weights, const kiln_expected *expected, char *error) {
  unsigned char digest[32];
  digest_of(weights->data, expected->bytes, digest);
  if (!memcmp(digest, expected->digest, sizeof digest)) return 0;
  snprintf(error, KILN_ERROR, "the weights were changed after the model was compiled: their SHA-256 differs");
  return -1;
}
