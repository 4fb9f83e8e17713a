// A consumer through the header: attaches to the table that it inherited as descriptor 3, and does what the test asks on stdin;
// or, with a seed as argument, writes until it is killed.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kvm_bridge_space.h"

#include <inttypes.h>
#include <stdlib.h>

enum { kMostRegions = 64, kFirstMemory = 4, kMostMemories = 16 };

static struct kvm_bridge_space space;
static struct kvm_bridge_space_region regions[kMostRegions];
static uint8_t *memory[kMostRegions];
static int region_count;

static void die(const char *what, int error) {
  fprintf(stderr, "%s: %s\n", what, strerror(error));
  exit(1);
}

// The inherited descriptor with an inode, or -1.
static int descriptor_of(uint64_t inode) {
  struct stat status;
  for (int fd = kFirstMemory; fd < kFirstMemory + kMostMemories; fd++) {
    if (fstat(fd, &status) == 0 && status.st_ino == inode) return fd;
  }
  return -1;
}

static void read_regions(void) {
  for (int i = 0; i < region_count; i++) {
    if (memory[i] != NULL) munmap(memory[i], regions[i].size);
    memory[i] = NULL;
  }
  region_count = kvm_bridge_space_regions(&space, regions, kMostRegions);
  if (region_count < 0) die("regions", -region_count);
  for (int i = 0; i < region_count; i++) {
    const int fd = descriptor_of(regions[i].memory);
    if (fd < 0) continue;
    void *mapped = kvm_bridge_space_map(&regions[i], fd, PROT_READ | PROT_WRITE);
    if (mapped == MAP_FAILED) die("map", errno);
    memory[i] = mapped;
  }
  kvm_bridge_space_acknowledge(&space, space.generation);
}

// The region that has an address, or -1.
static int region_at(uint64_t gpa) {
  if (kvm_bridge_space_changed(&space)) read_regions();
  for (int i = 0; i < region_count; i++) {
    if (memory[i] != NULL && gpa - regions[i].gpa < regions[i].size) return i;
  }
  return -1;
}

// Writes bytes that lie in one region; what is written is dirty where the memory is, also if that moves meanwhile.
static void write_bytes(int region, uint64_t gpa, const void *bytes, size_t length, int dies) {
  const uint64_t in_region = gpa - regions[region].gpa;
  const uint64_t inode = regions[region].memory;
  const uint64_t offset = regions[region].offset + in_region;
  kvm_bridge_space_begin_write(&space);
  memcpy(memory[region] + in_region, bytes, length);
  if (dies) abort();
  kvm_bridge_space_mark(&space, gpa, length);
  while (kvm_bridge_space_end_write(&space) != 0) {
    read_regions();
    for (int i = 0; i < region_count; i++) {
      if (regions[i].memory != inode || offset - regions[i].offset >= regions[i].size) continue;
      kvm_bridge_space_mark(&space, regions[i].gpa + (offset - regions[i].offset), length);
    }
  }
}

// Attaches, writes here and there, and detaches, over and over.
static void storm(unsigned seed) {
  static uint8_t bytes[64];
  for (;;) {
    const int attached = kvm_bridge_space_attach(&space, 3, "storm in C");
    if (attached != 0) die("attach", -attached);
    read_regions();
    const int writes = rand_r(&seed) % 2000;
    for (int i = 0; i < writes; i++) {
      if (kvm_bridge_space_changed(&space)) read_regions();
      if (region_count == 0) continue;
      const int region = (int)((unsigned)rand_r(&seed) % (unsigned)region_count);
      if (memory[region] == NULL) continue;
      const uint64_t gpa = regions[region].gpa + (uint64_t)rand_r(&seed) % (regions[region].size - sizeof bytes);
      memset(bytes, rand_r(&seed), sizeof bytes);
      write_bytes(region, gpa, bytes, 1 + (size_t)rand_r(&seed) % sizeof bytes, 0);
    }
    kvm_bridge_space_detach(&space);
  }
}

int main(int argc, char **argv) {
  if (argc > 1) storm((unsigned)atoi(argv[1]));
  char command;
  uint64_t gpa;
  unsigned value;
  const int attached = kvm_bridge_space_attach(&space, 3, "consumer in C");
  if (attached != 0) die("attach", -attached);
  read_regions();
  printf("attached %d\n", region_count);
  fflush(stdout);
  while (scanf(" %c %" SCNx64 " %x", &command, &gpa, &value) == 3) {
    const int region = region_at(gpa);
    if (region < 0) {
      printf("no memory\n");
    } else if (command == 'r') {
      printf("%02x\n", memory[region][gpa - regions[region].gpa]);
    } else {
      const uint8_t byte = (uint8_t)value;
      // k: dies in the middle of the write.
      write_bytes(region, gpa, &byte, 1, command == 'k');
      printf("written\n");
    }
    fflush(stdout);
  }
  kvm_bridge_space_detach(&space);
  return 0;
}
