// What the CUDA handlers share.
#ifndef BRAINJAX_LAUNCH_H_
#define BRAINJAX_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "batch.h"

namespace brainjax {

constexpr int64_t kMaxGridX = 0x7fffffff;
constexpr int64_t kMaxGridYZ = 65535;

BRAINJAX_HOST_DEVICE constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline ffi::Error StatusOf(const char* operation, cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string(operation) + ": " + cudaGetErrorString(error));
}

// An operation's count may be anything: it was computed on the device.
__device__ __forceinline__ uint32_t ClampCount(int32_t count, int64_t largest) {
  return static_cast<uint32_t>(count < 0 ? 0 : count < largest ? count : largest);
}

}  // namespace brainjax

#endif  // BRAINJAX_LAUNCH_H_
