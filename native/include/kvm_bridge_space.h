/*
 * The table of an address space of kvm-bridge, version 1, and what a consumer in C does with it. docs/sharing.md explains it.
 *
 * The table is a memfd. It holds a header, a record for each consumer, two arrays of regions of which one is valid, and a dirty
 * log as vhost-user has it. The memory of the regions is in other memfds, told apart by their inode. Everything is in the byte
 * order of the machine.
 *
 * C11 or C++11, with GCC's atomic built-ins. Link nothing. Define _GNU_SOURCE for F_OFD_SETLK.
 */
#ifndef KVM_BRIDGE_SPACE_H_
#define KVM_BRIDGE_SPACE_H_

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KVM_BRIDGE_SPACE_MAGIC "KVMBSPC1"
#define KVM_BRIDGE_SPACE_VERSION 1
/* The header's bytes; the consumers' records follow. */
#define KVM_BRIDGE_SPACE_HEADER_BYTES 4096
/* A bit of the log is so many bytes, on every machine. */
#define KVM_BRIDGE_SPACE_LOG_PAGE 4096

/* Bits of kvm_bridge_space_header.flags. */
#define KVM_BRIDGE_SPACE_LITTLE_ENDIAN_GUEST 1
/* Bits of kvm_bridge_space_region.flags. */
#define KVM_BRIDGE_SPACE_READ_ONLY 1
#define KVM_BRIDGE_SPACE_DEVICE 2

/* kvm_bridge_space_consumer.acknowledged of a consumer that has left: the place may be taken. */
#define KVM_BRIDGE_SPACE_LEFT UINT64_MAX

struct kvm_bridge_space_header {
  char magic[8];
  uint32_t version;
  /* Bytes of a page of the host, and so of a guest frame. */
  uint32_t page_size;
  uint32_t flags;
  uint32_t owner_pid;
  uint64_t table_bytes;
  uint32_t max_regions;
  uint32_t max_consumers;
  /* Two arrays of max_regions: the one with the index (generation & 1) is valid. */
  uint64_t regions_offset;
  uint64_t consumers_offset;
  uint64_t log_offset;
  uint64_t log_bytes;
  /* What stands before never changes. */
  uint8_t reserved[56];
  /* Atomic. How many changes there were; the owner writes the other array first. */
  uint64_t generation;
  uint32_t region_count[2];
  /* Atomic. Not 0: the owner has closed the address space; the memory still reads. */
  uint32_t closed;
};

struct kvm_bridge_space_region {
  uint64_t gpa;
  uint64_t size;
  /* Where it begins in the memory. */
  uint64_t offset;
  /* Inode of the memfd; 0: the owner cannot give it to others. */
  uint64_t memory;
  uint64_t memory_bytes;
  uint32_t flags;
  /* The memfd's descriptor in the owner's process. */
  int32_t owner_fd;
  char name[48];
};

/* A consumer has locked its record (F_OFD_SETLK, through a descriptor that it opened itself) for as long as it lives. */
struct kvm_bridge_space_consumer {
  /* Atomic. The generation up to which it has let go of what has gone; KVM_BRIDGE_SPACE_LEFT when it has left. */
  uint64_t acknowledged;
  /* Atomic. Not 0: it is writing, and has not set the bits yet. If it dies then, every page is dirty. */
  uint32_t writers;
  /* Atomic. 0: nobody's. Another pid, found under a lock that one got, is of somebody who left, or is dead: the owner sees to that. */
  uint32_t pid;
  char name[48];
};

/* A consumer's use of a table. */
struct kvm_bridge_space {
  int fd;
  uint8_t *table;
  size_t table_bytes;
  struct kvm_bridge_space_consumer *consumer;
  /* That of the last kvm_bridge_space_regions. */
  uint64_t generation;
  /* As the header said when it was checked: whoever has the table can write it. */
  const uint8_t *regions;
  uint32_t max_regions;
  uint8_t *log;
  uint64_t log_bytes;
};

static inline const struct kvm_bridge_space_header *kvm_bridge_space_header(const struct kvm_bridge_space *space) {
  return (const struct kvm_bridge_space_header *)(const void *)space->table;
}

/* Says that whatever went until the generation is used no more: call it when it is unmapped, or will not be touched again. */
static inline void kvm_bridge_space_acknowledge(struct kvm_bridge_space *space, uint64_t generation) {
  __atomic_store_n(&space->consumer->acknowledged, generation, __ATOMIC_SEQ_CST);
}

/* Whether regions have changed since they were last read. */
static inline int kvm_bridge_space_changed(const struct kvm_bridge_space *space) {
  return __atomic_load_n(&kvm_bridge_space_header(space)->generation, __ATOMIC_SEQ_CST) != space->generation;
}

static inline int kvm_bridge_space_lock(int fd, off_t start, off_t length, short type) {
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return fcntl(fd, F_OFD_SETLK, &lock);
}

/* Whether the owner lives: it has locked the table's first byte. */
static inline int kvm_bridge_space_owner_lives(const struct kvm_bridge_space *space) {
  struct flock lock;
  memset(&lock, 0, sizeof lock);
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_len = 1;
  return fcntl(space->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static inline int kvm_bridge_space_fits(const struct kvm_bridge_space_header *header, uint64_t bytes) {
  const uint64_t consumers = (uint64_t)header->max_consumers * sizeof(struct kvm_bridge_space_consumer);
  const uint64_t regions = 2 * (uint64_t)header->max_regions * sizeof(struct kvm_bridge_space_region);
  return header->table_bytes == bytes && header->consumers_offset == KVM_BRIDGE_SPACE_HEADER_BYTES &&
         header->regions_offset == header->consumers_offset + consumers &&
         header->log_offset >= header->regions_offset + regions && header->log_offset <= bytes &&
         header->log_bytes == bytes - header->log_offset;
}

/* Gives the place back and unmaps the table. The caller's mappings of memory are the caller's. */
static inline void kvm_bridge_space_detach(struct kvm_bridge_space *space) {
  if (space->consumer != NULL) {
    __atomic_store_n(&space->consumer->writers, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&space->consumer->acknowledged, KVM_BRIDGE_SPACE_LEFT, __ATOMIC_SEQ_CST);
  }
  if (space->table != NULL) munmap(space->table, space->table_bytes);
  if (space->fd >= 0) close(space->fd);
  space->consumer = NULL;
  space->table = NULL;
  space->fd = -1;
}

static inline int kvm_bridge_space_claim(struct kvm_bridge_space *space, const struct kvm_bridge_space_header *header,
                                         const char *name) {
  /* An empty place, or else one that somebody has left. */
  for (uint64_t n = 0; n < 2 * (uint64_t)header->max_consumers; n++) {
    const uint64_t i = n % header->max_consumers;
    const uint64_t at = header->consumers_offset + i * sizeof(struct kvm_bridge_space_consumer);
    struct kvm_bridge_space_consumer *place = (struct kvm_bridge_space_consumer *)(void *)(space->table + at);
    if (kvm_bridge_space_lock(space->fd, (off_t)at, sizeof *place, F_WRLCK) != 0) continue;
    const int has_left = __atomic_load_n(&place->acknowledged, __ATOMIC_SEQ_CST) == KVM_BRIDGE_SPACE_LEFT;
    if (__atomic_load_n(&place->pid, __ATOMIC_SEQ_CST) != 0 && !(has_left && n >= header->max_consumers)) {
      kvm_bridge_space_lock(space->fd, (off_t)at, sizeof *place, F_UNLCK);
      continue;
    }
    __atomic_store_n(&place->acknowledged, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&place->writers, 0, __ATOMIC_SEQ_CST);
    snprintf(place->name, sizeof place->name, "%s", name);
    __atomic_store_n(&place->pid, (uint32_t)getpid(), __ATOMIC_SEQ_CST);
    space->consumer = place;
    return 0;
  }
  return -ENOSPC;
}

/* 0; -EPROTO when it is the header of no table, -EPROTONOSUPPORT of another version, or of a machine of the other byte order. */
static inline int kvm_bridge_space_check(const struct kvm_bridge_space_header *header, uint64_t bytes) {
  if (memcmp(header->magic, KVM_BRIDGE_SPACE_MAGIC, sizeof header->magic) != 0) return -EPROTO;
  if (header->version != KVM_BRIDGE_SPACE_VERSION) return -EPROTONOSUPPORT;
  return kvm_bridge_space_fits(header, bytes) ? 0 : -EPROTO;
}

/*
 * Attaches to the table that a descriptor names, which stays the caller's. 0, or -errno: -EPROTO when it is no table,
 * -EPROTONOSUPPORT when it is of another version or byte order, -ENOSPC when all places are taken.
 */
static inline int kvm_bridge_space_attach(struct kvm_bridge_space *space, int table_fd, const char *name) {
  char path[40];
  struct stat status;
  memset(space, 0, sizeof *space);
  space->generation = UINT64_MAX;
  const int seals = fcntl(table_fd, F_GET_SEALS);
  space->fd = -1;
  if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) return -EPROTO;
  /* An open file description of our own, since locks belong to that. */
  snprintf(path, sizeof path, "/proc/self/fd/%d", table_fd);
  space->fd = open(path, O_RDWR | O_CLOEXEC);
  if (space->fd < 0) return -errno;
  int error = EPROTO;
  if (fstat(space->fd, &status) == 0 && status.st_size >= KVM_BRIDGE_SPACE_HEADER_BYTES) {
    space->table_bytes = (size_t)status.st_size;
    void *mapped = mmap(NULL, space->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, space->fd, 0);
    if (mapped == MAP_FAILED) {
      error = errno;
    } else {
      space->table = (uint8_t *)mapped;
      struct kvm_bridge_space_header header;
      memcpy(&header, space->table, sizeof header);
      error = -kvm_bridge_space_check(&header, space->table_bytes);
      if (error == 0) {
        space->regions = space->table + header.regions_offset;
        space->max_regions = header.max_regions;
        space->log = space->table + header.log_offset;
        space->log_bytes = header.log_bytes;
        error = -kvm_bridge_space_claim(space, &header, name);
      }
    }
  }
  if (error != 0) kvm_bridge_space_detach(space);
  return -error;
}

/* Whether regions are sorted and whole pages, none empty, and none overlaps another or reaches past its memory. */
static inline int kvm_bridge_space_are_fine(const struct kvm_bridge_space_region *regions, uint32_t count) {
  uint64_t end = 0;
  for (uint32_t i = 0; i < count; i++) {
    const struct kvm_bridge_space_region *region = &regions[i];
    if (region->size == 0 || region->gpa < end || region->size > UINT64_MAX - region->gpa) return 0;
    if ((region->gpa | region->size | region->offset) % KVM_BRIDGE_SPACE_LOG_PAGE != 0) return 0;
    if (region->offset > region->memory_bytes || region->size > region->memory_bytes - region->offset) return 0;
    end = region->gpa + region->size;
  }
  return 1;
}

/*
 * Copies the regions of one generation, sorted by gpa, and remembers that. Their number; -ENOSPC when `room` is too small; -EAGAIN
 * when they change all the time; -EPROTO when they can't be true.
 */
static inline int kvm_bridge_space_regions(struct kvm_bridge_space *space, struct kvm_bridge_space_region *regions,
                                           uint32_t room) {
  const struct kvm_bridge_space_header *header = kvm_bridge_space_header(space);
  for (int tries = 0; tries < 1000; tries++) {
    const uint64_t generation = __atomic_load_n(&header->generation, __ATOMIC_SEQ_CST);
    const uint32_t count = __atomic_load_n(&header->region_count[generation & 1], __ATOMIC_SEQ_CST);
    const uint64_t first = (generation & 1) * (uint64_t)space->max_regions;
    const uint8_t *from = space->regions + first * sizeof *regions;
    const int fits = count <= room && count <= space->max_regions;
    if (fits) memcpy(regions, from, count * sizeof *regions);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&header->generation, __ATOMIC_SEQ_CST) != generation) continue;
    if (!fits) return count > space->max_regions ? -EPROTO : -ENOSPC;
    if (!kvm_bridge_space_are_fine(regions, count)) return -EPROTO;
    space->generation = generation;
    return (int)count;
  }
  return -EAGAIN;
}

/*
 * Maps the memory of a region, whose memfd is `fd`: munmap it with the region's size. MAP_FAILED with errno; EPROTO when it is another
 * file, is shorter than the table says, or could become shorter (which would be a SIGBUS).
 */
static inline void *kvm_bridge_space_map(const struct kvm_bridge_space_region *region, int fd, int protection) {
  struct stat status;
  const int seals = fcntl(fd, F_GET_SEALS);
  errno = EPROTO;
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &status) != 0) return MAP_FAILED;
  const uint64_t bytes = (uint64_t)status.st_size;
  if (status.st_ino != region->memory || region->offset > bytes || region->size > bytes - region->offset) {
    errno = EPROTO;
    return MAP_FAILED;
  }
  return mmap(NULL, region->size, protection, MAP_SHARED, fd, (off_t)region->offset);
}

/* Before the first byte is written: should the consumer die before kvm_bridge_space_end_write, every page counts as dirty. */
static inline void kvm_bridge_space_begin_write(struct kvm_bridge_space *space) {
  __atomic_fetch_add(&space->consumer->writers, 1, __ATOMIC_SEQ_CST);
}

/* Sets the bits of a range of guest physical addresses that was written. */
static inline void kvm_bridge_space_mark(struct kvm_bridge_space *space, uint64_t gpa, uint64_t length) {
  const uint64_t pages = space->log_bytes * 8;
  if (length == 0) return;
  const uint64_t end = length - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + (length - 1);
  for (uint64_t page = gpa / KVM_BRIDGE_SPACE_LOG_PAGE; page <= end / KVM_BRIDGE_SPACE_LOG_PAGE && page < pages; page++) {
    __atomic_fetch_or(&space->log[page / 8], (uint8_t)(1u << (page % 8)), __ATOMIC_SEQ_CST);
  }
}

/*
 * After the bits were set. 0; or 1 when regions have changed since they were read: the write may have been to a region that has
 * moved. Then read the regions again, mark the place where the memory is now, and end the write after that.
 */
static inline int kvm_bridge_space_end_write(struct kvm_bridge_space *space) {
  if (kvm_bridge_space_changed(space)) return 1;
  __atomic_fetch_sub(&space->consumer->writers, 1, __ATOMIC_SEQ_CST);
  return 0;
}

#endif
