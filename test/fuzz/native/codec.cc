// The loops of the HTAB codec (native/htab.cc) on any stream and any table, against the plainest code that does the same.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "call.h"
#include "input.h"

namespace kvm_bridge {

// There is no environment, and no function asks for it.
Binding* Environment::NewBinding(const char* name) {
  static Binding bindings[2];
  static size_t count = 0;
  bindings[count] = {this, name};
  return &bindings[count++];
}

}  // namespace kvm_bridge

namespace {

constexpr size_t kEntry = 16;
// What clearing costs must not be more than this many times the table: htab.cc's kMaxTurns.
constexpr uint64_t kMaxTurns = 64;
using Bytes = std::vector<uint8_t>;

uint32_t Field(const uint8_t* at, size_t size, bool is_little) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; i++) value |= uint32_t{at[is_little ? i : size - 1 - i]} << (8 * i);
  return value;
}

bool IsGood(const uint8_t* entry, const uint8_t* sizes) {
  const bool is_valid = (entry[7] & 1) != 0;
  const bool is_reserved = (entry[0] & 0x80) != 0;
  const bool is_large = (entry[7] & 4) != 0;
  return is_valid && !is_reserved && (!is_large || sizes[(entry[13] & 0xf) << 4 | entry[14] >> 4] != 0);
}

// The table that the stream makes of one; false when the stream is wrong.
bool Applied(Bytes& table, const Bytes& stream, bool is_little, const uint8_t* sizes) {
  const uint64_t count = table.size() / kEntry;
  uint64_t cleared = 0;
  for (size_t at = 0; at < stream.size();) {
    if (stream.size() - at < 8) return false;
    const uint64_t index = Field(&stream[at], 4, is_little);
    const uint64_t valid = Field(&stream[at + 4], 2, is_little);
    const uint64_t invalid = Field(&stream[at + 6], 2, is_little);
    at += 8;
    cleared += invalid;
    if (index >= count || index + valid + invalid > count || stream.size() - at < valid * kEntry) return false;
    for (uint64_t i = 0; i < valid; i++, at += kEntry) {
      if (!IsGood(&stream[at], sizes)) return false;
      uint8_t* entry = &table[(index + i) * kEntry];
      memcpy(entry, &stream[at], kEntry);
      entry[7] &= static_cast<uint8_t>(~0x60);
    }
    for (uint64_t i = 0; i < invalid; i++) memset(&table[(index + valid + i) * kEntry], 0, kEntry);
  }
  return cleared <= kMaxTurns * count;
}

void Put(Bytes& out, uint64_t value, size_t size, bool is_little) {
  for (size_t i = 0; i < size; i++) out.push_back(static_cast<uint8_t>(value >> (8 * (is_little ? i : size - 1 - i))));
}

Bytes Encoded(const Bytes& table, uint64_t from, uint64_t to, uint8_t mask, bool is_little) {
  Bytes out;
  const auto is_marked = [&](uint64_t slot) { return (table[slot * kEntry + 7] & mask) == mask; };
  for (uint64_t slot = from; slot < to;) {
    uint64_t end = slot;
    while (end < to && end - slot < 0xffff && is_marked(end)) end++;
    uint64_t empty = end;
    while (empty < to && empty - end < 0xffff && !is_marked(empty)) empty++;
    Put(out, slot, 4, is_little);
    Put(out, end - slot, 2, is_little);
    Put(out, empty - end, 2, is_little);
    out.insert(out.end(), table.begin() + static_cast<long>(slot * kEntry), table.begin() + static_cast<long>(end * kEntry));
    slot = empty;
  }
  return out;
}

double Call(const char* name, std::vector<FakeValue> values) {
  std::vector<FakeValue*> arguments;
  for (FakeValue& value : values) arguments.push_back(&value);
  const FakeValue* result = CallFunction(name, arguments);
  const Thrown thrown = TakeThrown();
  MUST(!thrown.is_pending && result != nullptr && result->sort == Sort::number);
  return result->number;
}

Bytes ToBytes(const Memory& memory) { return Bytes(memory.data(), memory.data() + memory.size()); }

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  alignas(kvm_bridge::Environment) static uint8_t nowhere[sizeof(kvm_bridge::Environment)];
  auto& environment = *reinterpret_cast<kvm_bridge::Environment*>(nowhere);
  kvm_bridge::ExportHtab(kvm_bridge::Exports(environment, nullptr));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto flags = input.Take<uint8_t>();
  const bool is_little = (flags & 1) != 0;
  const size_t skew = (flags >> 1) & 7;
  // Up to some blocks of 64 slots, and a table that ends in the middle of one.
  const size_t count = input.Take<uint16_t>() % 400;
  const auto mask = input.Take<uint8_t>();
  Memory sizes(256);
  // The page sizes that exist, all, or none.
  for (size_t i = 0; i < 256; i++) sizes.data()[i] = (flags & 0x10) != 0 ? (flags & 0x20) != 0 : i % 3 == 0;
  Memory table(count * kEntry, skew);
  const size_t stain = input.Take<uint8_t>();
  for (size_t i = 7; i < table.size() && stain != 0; i += kEntry * stain) table.data()[i] = mask | 1;
  Memory stream(input.left(), skew);
  input.TakeBytes(stream.data(), stream.size());

  const Bytes before = ToBytes(table);
  Bytes expected = before;
  const bool is_right = Applied(expected, ToBytes(stream), is_little, sizes.data());
  const double applied = Call("apply", {BytesValue(table.data(), table.size()), BytesValue(stream.data(), stream.size()),
                                        NumberValue(is_little), BytesValue(sizes.data(), sizes.size())});
  MUST(applied == (is_right ? 1 : 0));
  MUST(ToBytes(table) == (is_right ? expected : before));

  const Bytes now = ToBytes(table);
  const uint64_t from = count == 0 ? 0 : stain % count;
  const Bytes whole = Encoded(now, from, count, mask, is_little);
  // With just the room that it takes, and with less.
  for (const size_t room : {whole.size(), whole.size() - std::min<size_t>(whole.size(), size % 40)}) {
    Memory out(room, skew);
    const double length = Call("encode", {BytesValue(table.data(), table.size()), NumberValue(static_cast<double>(from)),
                                          NumberValue(static_cast<double>(count)), NumberValue(mask), NumberValue(is_little),
                                          BytesValue(out.data(), out.size())});
    MUST(length == (room == whole.size() ? static_cast<double>(whole.size()) : -ENOSPC));
    MUST(room != whole.size() || ToBytes(out) == whole);
  }
  MUST(ToBytes(table) == now);
  return 0;
}
