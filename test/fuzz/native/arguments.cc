// The argument readers (native/arguments.cc) on any JavaScript value: what is read is what was there, and nothing else fits.
#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>

#include <cmath>

#include "input.h"

using kvm_bridge::Expected;
using kvm_bridge::Fit;
using kvm_bridge::Read;

namespace {

// Numbers at the ends of all ranges come up more often than among all doubles.
constexpr double kEnds[] = {0, -0.0, 1, 255, 256, 65536, 2147483647, 2147483648, 4294967295, 4294967296, 9007199254740991,
                            9007199254740992, 18446744073709551616.0, INFINITY, NAN, 0.5, 5e-324, 1e308};

class Values {
 public:
  FakeValue* Make(Input& input, int depth = 0) {
    all_.emplace_back();
    FakeValue& value = all_.back();
    value.sort = static_cast<Sort>(input.Take<uint8_t>() % kSorts);
    switch (value.sort) {
      case Sort::number: {
        const auto how = input.Take<uint8_t>();
        value.number = how < 128 ? kEnds[how % std::size(kEnds)] * ((how & 64) != 0 ? -1 : 1) + (how & 32) / 32
                                 : input.Take<double>();
        break;
      }
      case Sort::bigint:
        value.bits = input.Take<uint64_t>();
        value.is_lossless = (input.Take<uint8_t>() & 1) == 0;
        break;
      case Sort::text: {
        char text[300];
        value.text.assign(text, input.TakeBytes(text, input.Take<uint16_t>() % sizeof text));
        break;
      }
      case Sort::array:
        for (size_t count = depth > 2 ? 0 : input.Take<uint8_t>() % 7; count > 0; count--) {
          value.elements.push_back(Make(input, depth + 1));
        }
        break;
      case Sort::typed_array: {
        value.type = static_cast<napi_typedarray_type>(input.Take<uint8_t>() % (napi_biguint64_array + 1));
        value.length = input.Take<uint8_t>();
        // As JavaScript has it: a multiple of the element's size.
        value.byte_offset = input.Take<uint8_t>() * size_t{8};
        memory_.emplace_back(value.byte_offset + value.length * 8);
        value.data = memory_.back().data() + value.byte_offset;
        break;
      }
      default:
        break;
    }
    return &value;
  }

 private:
  std::deque<FakeValue> all_;
  std::deque<Memory> memory_;
};

bool IsInteger(const FakeValue& value, double least, double most) {
  return value.sort == Sort::number && value.number >= least && value.number <= most &&
         std::floor(value.number) == value.number;
}

bool IsU64(const FakeValue& value) {
  return (value.sort == Sort::bigint && value.is_lossless) || IsInteger(value, 0, 9007199254740991.0);
}

uint64_t U64Of(const FakeValue& value) {
  return value.sort == Sort::bigint ? value.bits : static_cast<uint64_t>(value.number);
}

bool IsArray(const FakeValue& value, napi_typedarray_type type) {
  return value.sort == Sort::typed_array && value.type == type;
}

// Whatever does not fit becomes an exception with a code and the place in it, unless a getter has thrown.
template <typename T>
bool Fits(FakeValue* value, T& out, bool should) {
  const Fit fit = Read(nullptr, ToNapi(value), out);
  MUST((fit == Fit::yes) == should);
  if (fit == Fit::yes) return true;
  ThrowMisfit(nullptr, "call", 2, Expected(out), fit);
  const Thrown thrown = TakeThrown();
  MUST(thrown.is_pending);
  if (thrown.message == "thrown by a getter") return false;
  MUST(thrown.message == std::string("call: argument 3 must be ") + Expected(out));
  MUST(thrown.code == (fit == Fit::wrong_type ? "ERR_INVALID_ARG_TYPE" : "ERR_OUT_OF_RANGE"));
  return false;
}

template <typename T>
void CheckInteger(FakeValue* value, double least, double most) {
  T out = {};
  if (Fits(value, out, IsInteger(*value, least, most))) MUST(static_cast<double>(out) == value->number);
}

template <typename Element>
void CheckArray(FakeValue* value, napi_typedarray_type type) {
  kvm_bridge::Array<Element> out;
  if (!Fits(value, out, IsArray(*value, type))) return;
  MUST(out.data == value->data && out.length == value->length);
  // Whoever uses it touches all of it.
  for (size_t i = 0; i < out.length; i++) out.data[i] = {};
}

void CheckBytes(FakeValue* value) {
  kvm_bridge::Bytes out;
  const bool is_array = IsArray(*value, napi_uint8_array);
  if (!Fits(value, out, is_array || value->sort == Sort::null)) return;
  MUST(out.is_null == !is_array);
  MUST(is_array ? out.data == value->data && out.length == value->length : out.data == nullptr && out.length == 0);
}

void CheckCapArguments(FakeValue* value) {
  kvm_bridge::CapArguments out;
  bool should = value->sort == Sort::array && value->elements.size() <= 4;
  for (size_t i = 0; should && i < value->elements.size(); i++) should = IsU64(*value->elements[i]);
  if (!Fits(value, out, should)) return;
  for (size_t i = 0; i < 4; i++) {
    MUST(out.values[i] == (i < value->elements.size() ? U64Of(*value->elements[i]) : 0));
  }
}

void CheckName(FakeValue* value) {
  kvm_bridge::Name out;
  const std::string kept = value->text.substr(0, sizeof out.text - 1);
  if (!Fits(value, out, value->sort == Sort::text && kept.find('\0') == std::string::npos)) return;
  MUST(kept == out.text);
}

void CheckRest(FakeValue* value) {
  uint64_t wide = 0;
  if (Fits(value, wide, IsU64(*value))) MUST(wide == U64Of(*value));

  kvm_bridge::OwnFd fd;
  if (Fits(value, fd, IsInteger(*value, INT32_MIN, INT32_MAX))) MUST(fd.number == value->number);

  kvm_bridge::Word32 word;
  if (Fits(value, word, IsInteger(*value, INT32_MIN, UINT32_MAX))) {
    MUST(word.bits == value->number || word.AsSigned() == value->number);
  }

  kvm_bridge::Milliseconds time;
  if (Fits(value, time, value->sort == Sort::number && value->number >= 0)) MUST(time.value == value->number);

  kvm_bridge::Shown shown;
  if (Fits(value, shown, IsArray(*value, napi_uint8_array))) {
    MUST(shown.start + value->byte_offset == value->data && shown.buffer == ToNapi(value));
  }

  kvm_bridge::ValueOrStructure either;
  const bool is_array = IsArray(*value, napi_uint8_array);
  if (!Fits(value, either, is_array || IsU64(*value))) return;
  MUST(either.is_value == !is_array);
  MUST(is_array ? either.structure.data == value->data : either.value == U64Of(*value));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  while (input.left() > 0) {
    Values values;
    FakeValue* value = values.Make(input);
    CheckInteger<uint8_t>(value, 0, UINT8_MAX);
    CheckInteger<int32_t>(value, INT32_MIN, INT32_MAX);
    CheckInteger<uint32_t>(value, 0, UINT32_MAX);
    CheckArray<uint8_t>(value, napi_uint8_array);
    CheckArray<int32_t>(value, napi_int32_array);
    CheckArray<uint32_t>(value, napi_uint32_array);
    CheckArray<double>(value, napi_float64_array);
    CheckArray<uint64_t>(value, napi_biguint64_array);
    CheckBytes(value);
    CheckCapArguments(value);
    CheckName(value);
    CheckRest(value);
  }
  return 0;
}
