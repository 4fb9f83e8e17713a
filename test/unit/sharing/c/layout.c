// Prints where the header has everything, for the test that compares it with lib/sharing/table/layout.ts.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "kvm_bridge_space.h"

#define FIELD(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct kvm_bridge_space_##type, field))

int main(void) {
  FIELD(header, magic);
  FIELD(header, version);
  FIELD(header, page_size);
  FIELD(header, flags);
  FIELD(header, owner_pid);
  FIELD(header, table_bytes);
  FIELD(header, max_regions);
  FIELD(header, max_consumers);
  FIELD(header, regions_offset);
  FIELD(header, consumers_offset);
  FIELD(header, log_offset);
  FIELD(header, log_bytes);
  FIELD(header, generation);
  FIELD(header, region_count);
  FIELD(header, closed);
  printf("header.bytes %d\n", KVM_BRIDGE_SPACE_HEADER_BYTES);
  FIELD(region, gpa);
  FIELD(region, size);
  FIELD(region, offset);
  FIELD(region, memory);
  FIELD(region, memory_bytes);
  FIELD(region, flags);
  FIELD(region, owner_fd);
  FIELD(region, name);
  printf("region.bytes %zu\n", sizeof(struct kvm_bridge_space_region));
  FIELD(consumer, acknowledged);
  FIELD(consumer, writers);
  FIELD(consumer, pid);
  FIELD(consumer, name);
  printf("consumer.bytes %zu\n", sizeof(struct kvm_bridge_space_consumer));
  printf("magic %s\n", KVM_BRIDGE_SPACE_MAGIC);
  printf("version %d\n", KVM_BRIDGE_SPACE_VERSION);
  printf("log_page %d\n", KVM_BRIDGE_SPACE_LOG_PAGE);
  printf("little_endian_guest %d\n", KVM_BRIDGE_SPACE_LITTLE_ENDIAN_GUEST);
  printf("read_only %d\n", KVM_BRIDGE_SPACE_READ_ONLY);
  printf("device %d\n", KVM_BRIDGE_SPACE_DEVICE);
  return 0;
}
