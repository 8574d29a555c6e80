// A list of neurons in pinned memory of the host, read and written across the bus by kernels.
#include "host_list.h"

#include <cstdint>

#include "handler.h"
#include "launch.h"

namespace brainjax {
namespace {

constexpr int kReaders = 256;  // threads of a block
constexpr int kWriters = 512;

// Nothing waits for the count: what lies behind the list is read as well, in the same time.
__global__ void __launch_bounds__(kReaders)
    ReadKernel(const __grid_constant__ HostListRead call) {
  const HostListMemory memory = MemoryAt(call.address, call.capacity);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kReaders + threadIdx.x;
  if (i < call.capacity) {
    const int32_t index = __ldcv(memory.indices + i);
    const float value = __ldcv(memory.values + i);
    call.indices[i] = index;
    call.values[i] = value;
  }
  if (i == 0) {
    const int32_t count = __ldcv(memory.head + kCountAt);
    const int32_t flag = __ldcv(memory.head + kFlagAt);
    const int32_t number = __ldcv(memory.head + kNumberAt);
    *call.count = count;
    *call.flag = flag != 0;
    *call.number = number;
  }
}

// Each block says when its part is there; whoever finds the number from all may read the list.
__global__ void __launch_bounds__(kWriters)
    WriteKernel(const __grid_constant__ HostListWrite call) {
  const HostListMemory memory = MemoryAt(call.address, call.capacity);
  const int64_t written = call.NumWritten();
  for (int64_t i = blockIdx.x * kWriters + threadIdx.x; i < written; i += kPosters * kWriters) {
    memory.indices[i] = call.indices[i];
    memory.values[i] = call.values[i];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) memory.head[kCountAt] = *call.count;
  __syncthreads();
  if (threadIdx.x > 0) return;
  __threadfence_system();
  *const_cast<volatile int32_t*>(memory.head + kPostsAt + blockIdx.x) = *call.number;
  if (blockIdx.x == 0) *call.written = *call.number;
}

ffi::Error Read(cudaStream_t stream, HostListReadOperands operands) {
  HostListRead call;
  const ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  const int64_t blocks = CeilDiv(call.capacity, kReaders);
  ReadKernel<<<static_cast<unsigned>(blocks > 0 ? blocks : 1), kReaders, 0, stream>>>(call);
  return StatusOf("read_host_list", cudaGetLastError());
}

ffi::Error Write(cudaStream_t stream, HostListWriteOperands operands) {
  HostListWrite call;
  const ffi::Error error = operands.Map(&call);
  if (error.failure()) return error;
  WriteKernel<<<kPosters, kWriters, 0, stream>>>(call);
  return StatusOf("write_host_list", cudaGetLastError());
}

}  // namespace
}  // namespace brainjax

// Whether kernels of a device reach memory of the host by the host's own address. Asked once for
// each memory: a kernel that tried would end the process.
extern "C" int BrainjaxReachesHostMemory(const void* memory, int device) {
  int current = 0;
  cudaPointerAttributes attributes = {};
  bool is_answered = cudaGetDevice(&current) == cudaSuccess && cudaSetDevice(device) == cudaSuccess;
  is_answered = is_answered && cudaPointerGetAttributes(&attributes, memory) == cudaSuccess;
  if (current != device) cudaSetDevice(current);
  cudaGetLastError();  // it would be another call's
  return is_answered && attributes.type == cudaMemoryTypeHost &&
         attributes.devicePointer == memory;
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    BrainjaxReadHostList, brainjax::Unpacked(brainjax::Read),
    brainjax::HostListReadOperands::Bind().Ctx<brainjax::StreamContext>(),
    {xla::ffi::Traits::kCmdBufferCompatible});
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    BrainjaxWriteHostList, brainjax::Unpacked(brainjax::Write),
    brainjax::HostListWriteOperands::Bind().Ctx<brainjax::StreamContext>(),
    {xla::ffi::Traits::kCmdBufferCompatible});
