// What the CUDA handlers share.
#ifndef BRAINJAX_LAUNCH_H_
#define BRAINJAX_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "batch.h"

namespace brainjax {

constexpr int64_t kMaxGridX = 0x7fffffff;
constexpr int64_t kMaxGridYZ = 65535;

BRAINJAX_HOST_DEVICE constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

using StreamContext = ffi::PlatformStream<cudaStream_t>;  // a handler's, behind its operands

inline ffi::Error StatusOf(const char* operation, cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string(operation) + ": " + cudaGetErrorString(error));
}

// The newest architecture that kernels are built for and a device of this one runs: what they do,
// their code decides when it is compiled.
constexpr int BuiltFor(int architecture) {
  int newest = 0;
  for (const int built : {__CUDA_ARCH_LIST__}) {
    if (built / 100 <= architecture && built / 100 > newest) newest = built / 100;
  }
  return newest;
}

// What the choice of a launch depends on, found out once per device.
struct Device {
  std::once_flag once;
  cudaError_t error = cudaSuccess;
  int multiprocessors = 0;
  int architecture = 0;   // the major number of the compute capability that kernels are built for
  int shared_memory = 0;  // bytes that a block may have, if it asks for them
};

// The current device. Inline, so that all files of the library share one table.
inline cudaError_t FindDevice(const Device** found) {
  constexpr int kMaxDevices = 64;
  static Device devices[kMaxDevices];
  int id = 0;
  const cudaError_t error = cudaGetDevice(&id);
  if (error != cudaSuccess) return error;
  if (id >= kMaxDevices) return cudaErrorInvalidDevice;
  Device& device = devices[id];
  std::call_once(device.once, [&] {
    const std::pair<cudaDeviceAttr, int*> wanted[] = {
        {cudaDevAttrMultiProcessorCount, &device.multiprocessors},
        {cudaDevAttrComputeCapabilityMajor, &device.architecture},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, &device.shared_memory}};
    for (const auto& [attribute, value] : wanted) {
      if (device.error == cudaSuccess) device.error = cudaDeviceGetAttribute(value, attribute, id);
    }
    device.architecture = BuiltFor(device.architecture);
  });
  *found = &device;
  return device.error;
}

// What a launch says of its blocks: those of a cluster, or all of them, run at the same time. One
// block needs no cluster, which older processors do not have.
inline std::optional<cudaLaunchAttribute> InClusters(int blocks) {
  if (blocks == 1) return std::nullopt;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  return attribute;
}

inline std::optional<cudaLaunchAttribute> AllTogether() {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  return attribute;
}

struct LaunchSize {
  dim3 grid;
  int threads;           // of a block
  int64_t shared_bytes;  // that a block asks for beside those the kernel names
};

// Lets a kernel ask for so many bytes of shared memory. How many it may ask for is a property of
// the kernel, for all threads and for what has been captured: it is raised to all that there is,
// and never lowered.
template <typename Kernel>
cudaError_t AllowSharedMemory(Kernel* kernel, int64_t bytes) {
  if (bytes == 0) return cudaSuccess;
  const Device* device = nullptr;
  cudaFuncAttributes now;
  cudaError_t error = FindDevice(&device);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&now, kernel);
  if (error != cudaSuccess) return error;
  const int all = device->shared_memory - static_cast<int>(now.sharedSizeBytes);
  if (bytes > all) return cudaErrorLaunchOutOfResources;
  if (now.maxDynamicSharedSizeBytes == all) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, all);
}

// Starts a kernel, with at most one attribute.
template <typename... Parameters, typename... Arguments>
cudaError_t StartKernel(cudaStream_t stream, const LaunchSize& size,
                        std::optional<cudaLaunchAttribute> attribute,
                        void (*kernel)(Parameters...), const Arguments&... arguments) {
  const cudaError_t error = AllowSharedMemory(kernel, size.shared_bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = size.grid;
  config.blockDim = dim3(size.threads);
  config.dynamicSmemBytes = size.shared_bytes;
  config.stream = stream;
  config.attrs = attribute ? &*attribute : nullptr;
  config.numAttrs = attribute ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// An operation's count may be anything: it was computed on the device.
__device__ __forceinline__ uint32_t ClampCount(int32_t count, int64_t largest) {
  return static_cast<uint32_t>(count < 0 ? 0 : count < largest ? count : largest);
}

// Divides numbers that may need 64 bits but seldom do: with 32 it takes a fraction of the time.
__device__ __forceinline__ int64_t Quotient(int64_t a, uint32_t b) {
  return a >> 32 == 0 ? static_cast<uint32_t>(a) / b : a / b;
}

__device__ __forceinline__ int64_t QuotientUp(int64_t a, uint32_t b) {
  return Quotient(a + b - 1, b);
}

}  // namespace brainjax

#endif  // BRAINJAX_LAUNCH_H_
