// A list of neurons in memory of the host, which a program reads, or writes, where it lies.
//
// What is transferred by XLA waits for streams, takes buffers and is copied once more; for a list
// of a burst that takes longer than the burst.
#ifndef BRAINJAX_HOST_LIST_H_
#define BRAINJAX_HOST_LIST_H_

#include <cstdint>

#include "active_set.h"
#include "batch.h"

namespace brainjax {

// Places of numbers in front of the entries, as in host_list.py.
constexpr int kCountAt = 0, kFlagAt = 1, kNumberAt = 2, kPostsAt = 16, kHead = 32;
constexpr int kPosters = kHead - kPostsAt;  // each says when its part of a list is written

// Where the parts of a list lie.
struct HostListMemory {
  int32_t* head;
  int32_t* indices;
  float* values;
};

// The address lies where the device can read it: a program is compiled once for lists anywhere.
BRAINJAX_HOST_DEVICE inline HostListMemory MemoryAt(const uint32_t* address, int64_t capacity) {
  const uint64_t whole = static_cast<uint64_t>(address[1]) << 32 | address[0];
  int32_t* const head = reinterpret_cast<int32_t*>(whole);
  int32_t* const entries = head + kHead;
  return {head, entries, reinterpret_cast<float*>(entries + capacity)};
}

struct HostListRead {
  const uint32_t* address;  // its lower and its upper half
  int32_t* indices;
  float* values;
  int32_t* count;
  bool* flag;
  int32_t* number;
  int64_t capacity;
};

struct HostListWrite {
  const uint32_t* address;
  const int32_t* indices;
  const float* values;
  const int32_t* count;
  const int32_t* number;
  int32_t* written;  // the number, when all entries are
  int64_t size;      // entries that may be listed
  int64_t capacity;  // entries that there is room for

  // Entries to write.
  BRAINJAX_HOST_DEVICE int64_t NumWritten() const {
    return NumListed(*count, size < capacity ? size : capacity);
  }
};

inline ffi::Error CheckHostList(Dimensions address, Dimensions indices, Dimensions values) {
  const bool fits = address.size() == 1 && address[0] == 2 && indices.size() == 1 &&
                    values.size() == 1 && indices[0] == values[0];
  return fits ? ffi::Error::Success()
              : ffi::Error::InvalidArgument("host_list: dimensions of the operands do not fit");
}

// The operands of a call that reads, in the order of host_list.py.
struct HostListReadOperands {
  ffi::Buffer<ffi::U32> address;
  ffi::Result<ffi::Buffer<ffi::S32>> indices;
  ffi::Result<ffi::Buffer<ffi::F32>> values;
  ffi::Result<ffi::BufferR0<ffi::S32>> count;
  ffi::Result<ffi::BufferR0<ffi::PRED>> flag;
  ffi::Result<ffi::BufferR0<ffi::S32>> number;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::Buffer<ffi::U32>>()
        .Ret<ffi::Buffer<ffi::S32>>().Ret<ffi::Buffer<ffi::F32>>()
        .Ret<ffi::BufferR0<ffi::S32>>().Ret<ffi::BufferR0<ffi::PRED>>()
        .Ret<ffi::BufferR0<ffi::S32>>();
  }

  ffi::Error Map(HostListRead* call) {
    const ffi::Error error =
        CheckHostList(address.dimensions(), indices->dimensions(), values->dimensions());
    if (error.failure()) return error;
    call->address = address.typed_data();
    call->indices = indices->typed_data();
    call->values = values->typed_data();
    call->count = count->typed_data();
    call->flag = flag->typed_data();
    call->number = number->typed_data();
    call->capacity = indices->dimensions()[0];
    return error;
  }
};

// The operands of a call that writes.
struct HostListWriteOperands {
  ffi::Buffer<ffi::U32> address;
  ffi::Buffer<ffi::S32> indices;
  ffi::Buffer<ffi::F32> values;
  ffi::BufferR0<ffi::S32> count;
  ffi::BufferR0<ffi::S32> number;
  ffi::Result<ffi::BufferR0<ffi::S32>> written;
  int64_t capacity;

  static auto Bind() {
    return ffi::Ffi::Bind()
        .Arg<ffi::Buffer<ffi::U32>>()
        .Arg<ffi::Buffer<ffi::S32>>().Arg<ffi::Buffer<ffi::F32>>()
        .Arg<ffi::BufferR0<ffi::S32>>().Arg<ffi::BufferR0<ffi::S32>>()
        .Ret<ffi::BufferR0<ffi::S32>>()
        .Attr<int64_t>("capacity");
  }

  ffi::Error Map(HostListWrite* call) {
    const ffi::Error error =
        CheckHostList(address.dimensions(), indices.dimensions(), values.dimensions());
    if (error.failure()) return error;
    call->address = address.typed_data();
    call->indices = indices.typed_data();
    call->values = values.typed_data();
    call->count = count.typed_data();
    call->number = number.typed_data();
    call->written = written->typed_data();
    call->size = indices.dimensions()[0];
    call->capacity = capacity;
    return error;
  }
};

}  // namespace brainjax

#endif  // BRAINJAX_HOST_LIST_H_
