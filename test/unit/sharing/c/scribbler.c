// Writes random words all over the table that it inherited as descriptor 3, until it is killed. Says so when it has begun.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kvm_bridge_space.h"

#include <stdlib.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  unsigned seed = (unsigned)atoi(argv[1]);
  struct stat status;
  if (fstat(3, &status) != 0) return 1;
  const size_t bytes = (size_t)status.st_size;
  volatile uint32_t *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
  if (words == MAP_FAILED) return 1;
  // A page of header, and what comes behind it up to the first of the log.
  const struct kvm_bridge_space_header *header = (const struct kvm_bridge_space_header *)(const void *)(uintptr_t)words;
  const size_t log = header->log_offset < bytes ? (size_t)header->log_offset : bytes;
  const size_t generation = offsetof(struct kvm_bridge_space_header, generation);
  puts("begun");
  fflush(stdout);
  for (;;) {
    const unsigned kind = (unsigned)rand_r(&seed) % 4;
    const unsigned value = (unsigned)rand_r(&seed) % 3 == 0 ? (unsigned)rand_r(&seed) * 2u : (unsigned)rand_r(&seed) % 8;
    // The fields that change most, the regions and records, and now and then anything.
    const size_t at = kind == 0   ? generation + (size_t)rand_r(&seed) % 20
                      : kind == 3 ? (size_t)rand_r(&seed) % bytes
                                  : KVM_BRIDGE_SPACE_HEADER_BYTES + (size_t)rand_r(&seed) % (log - KVM_BRIDGE_SPACE_HEADER_BYTES);
    words[at / 4] = value;
  }
}
