// A consumer through the header: attaches to the table that it inherited as descriptor 3, and does what the test asks on stdin.
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
    void *mapped = mmap(NULL, regions[i].size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)regions[i].offset);
    if (mapped == MAP_FAILED) die("mmap", errno);
    memory[i] = mapped;
  }
  kvm_bridge_space_acknowledge(&space, space.generation);
}

static uint8_t *at(uint64_t gpa) {
  if (kvm_bridge_space_changed(&space)) read_regions();
  for (int i = 0; i < region_count; i++) {
    if (memory[i] != NULL && gpa - regions[i].gpa < regions[i].size) return memory[i] + (gpa - regions[i].gpa);
  }
  return NULL;
}

int main(void) {
  char command;
  uint64_t gpa;
  unsigned value;
  const int attached = kvm_bridge_space_attach(&space, 3, "consumer in C");
  if (attached != 0) die("attach", -attached);
  read_regions();
  printf("attached %d\n", region_count);
  fflush(stdout);
  while (scanf(" %c %" SCNx64 " %x", &command, &gpa, &value) == 3) {
    uint8_t *byte = at(gpa);
    if (byte == NULL) {
      printf("no memory\n");
    } else if (command == 'r') {
      printf("%02x\n", *byte);
    } else {
      kvm_bridge_space_begin_write(&space);
      *byte = (uint8_t)value;
      // Dies in the middle of a write.
      if (command == 'k') abort();
      kvm_bridge_space_mark(&space, gpa, 1);
      while (kvm_bridge_space_end_write(&space) != 0) {
        read_regions();
        for (int i = 0; i < region_count; i++) kvm_bridge_space_mark(&space, regions[i].gpa, regions[i].size);
      }
      printf("written\n");
    }
    fflush(stdout);
  }
  kvm_bridge_space_detach(&space);
  return 0;
}
