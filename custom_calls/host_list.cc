// A list of neurons in memory of the host, which is also the device's.
#include "host_list.h"

#include <algorithm>
#include <cstdint>

#include "handler.h"

namespace brainjax {
namespace {

ffi::Error Read(ffi::ThreadPool, HostListReadOperands operands) {
  HostListRead call;
  const ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  const HostListMemory memory = MemoryAt(call.address, call.capacity);
  *call.count = memory.head[kCountAt];
  *call.flag = memory.head[kFlagAt] != 0;
  *call.number = memory.head[kNumberAt];
  std::copy_n(memory.indices, call.capacity, call.indices);
  std::copy_n(memory.values, call.capacity, call.values);
  return error;
}

ffi::Error Write(ffi::ThreadPool, HostListWriteOperands operands) {
  HostListWrite call;
  const ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  const HostListMemory memory = MemoryAt(call.address, call.capacity);
  const int64_t written = call.NumWritten();
  std::copy_n(call.indices, written, memory.indices);
  std::copy_n(call.values, written, memory.values);
  memory.head[kCountAt] = *call.count;
  std::fill_n(memory.head + kPostsAt, kPosters, *call.number);
  *call.written = *call.number;
  return error;
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    BrainjaxReadHostList, brainjax::Unpacked(brainjax::Read),
    brainjax::HostListReadOperands::Bind().Ctx<xla::ffi::ThreadPool>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    BrainjaxWriteHostList, brainjax::Unpacked(brainjax::Write),
    brainjax::HostListWriteOperands::Bind().Ctx<xla::ffi::ThreadPool>());
