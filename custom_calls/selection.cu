// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
//
// By size of a row: one block, a cluster of blocks, or the whole grid hold its keys in shared
// memory; larger rows are streamed.
#include <algorithm>
#include <cstdint>
#include <mutex>

#include "selection_resident.cuh"
#include "selection_streaming.cuh"

namespace brainjax {
namespace {

constexpr char kName[] = "select_winners";
constexpr int64_t kMaxKeysOfBlock = 48 * 1024;
constexpr int64_t kAloneInBlock = 16 * 1024;    // from more, several blocks select sooner than one
constexpr int64_t kAloneInCluster = 48 * 1024;  // from more, the whole grid does
constexpr int64_t kFewKeys = 4096;              // up to here more threads would only wait
constexpr int kSmallBlock = 256, kLargeBlock = 1024;
constexpr int kClusterSize = 8;
using Cluster = ClusterTeam<kClusterSize>;
constexpr int64_t kKeysOfTeamBlock = 1024;  // fewer are not worth a block of the grid
constexpr int64_t kMaxRoom = 16 * 1024;     // candidates of a block
constexpr int64_t kMinRoom = 1024;

// What a device can hold, found out once per device.
struct Limits {
  std::once_flag once;
  cudaError_t error;
  int multiprocessors = 0;
  bool has_clusters = false;
  int64_t keys_small_block = 0, keys_large_block = 0, keys_cluster_block = 0, keys_grid_block = 0;
  int64_t room = 0;
};

// Lets a kernel use all shared memory of a block; says how many bytes remain beside `used`.
template <typename Kernel>
cudaError_t AllowSharedMemory(Kernel kernel, int64_t largest, int64_t used, int64_t* bytes) {
  cudaFuncAttributes attributes;
  cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  const int64_t available = largest - static_cast<int64_t>(attributes.sharedSizeBytes);
  *bytes = std::max<int64_t>(available - used, 0);
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(available));
}

template <typename T>
cudaError_t FindLimits(int device, Limits* limits) {
  int largest = 0, major = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&largest, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&limits->multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  limits->multiprocessors = std::min(limits->multiprocessors, kMaxTeam);
  limits->has_clusters = major >= 9;
  const auto keys_beside = [&](auto kernel, int64_t used, int64_t* keys) {
    int64_t bytes = 0;
    if (error == cudaSuccess) error = AllowSharedMemory(kernel, largest, used, &bytes);
    *keys = std::min(bytes / 4, kMaxKeysOfBlock);
  };
  keys_beside(SelectInBlock<T, kSmallBlock>, 0, &limits->keys_small_block);
  keys_beside(SelectInBlock<T, kLargeBlock>, 0, &limits->keys_large_block);
  keys_beside(SelectInTeam<T, Cluster>, sizeof(TeamSpace), &limits->keys_cluster_block);
  keys_beside(SelectInTeam<T, GridTeam>, sizeof(TeamSpace), &limits->keys_grid_block);
  keys_beside(SelectStreaming<T, GridTeam>, sizeof(StreamSpace), &limits->room);
  limits->room = std::min(limits->room / 2, kMaxRoom);
  return error;
}

template <typename T>
cudaError_t LimitsOfDevice(const Limits** limits) {
  constexpr int kMaxDevices = 64;
  static Limits devices[kMaxDevices];
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  if (device >= kMaxDevices) return cudaErrorInvalidDevice;
  Limits& found = devices[device];
  std::call_once(found.once, [&] { found.error = FindLimits<T>(device, &found); });
  *limits = &found;
  return found.error;
}

// A launch whose blocks run together: clusters of `cluster` blocks, or all of a grid.
template <typename... Parameters, typename... Arguments>
cudaError_t LaunchTogether(cudaStream_t stream, int64_t blocks, int cluster, size_t bytes,
                           void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchAttribute attribute{};
  if (cluster > 0) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  } else {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(blocks);
  config.blockDim = kTeamThreads;
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <int kThreads, typename T>
cudaError_t SelectInBlocks(cudaStream_t stream, const SelectionProblem<T>& problem) {
  const int64_t blocks = std::min(problem.batch, kMaxGridX);
  SelectInBlock<T, kThreads><<<static_cast<unsigned>(blocks), kThreads,
                               CeilDiv(problem.n, 4) * 16, stream>>>(problem);
  return cudaGetLastError();
}

template <typename T, typename Team>
cudaError_t SelectInTeams(cudaStream_t stream, const SelectionProblem<T>& problem, int64_t teams,
                          int blocks, int cluster) {
  const size_t bytes = sizeof(TeamSpace) + KeysOfBlock(problem.n, blocks) * sizeof(uint32_t);
  return LaunchTogether(stream, teams * blocks, cluster, bytes, SelectInTeam<T, Team>, problem);
}

ffi::Error TooLittleScratch() {
  return ffi::Error::InvalidArgument("select_winners: too little scratch memory");
}

template <typename T>
ffi::Error SelectLarge(cudaStream_t stream, const SelectionProblem<T>& problem,
                       const Limits& limits) {
  const int blocks = limits.multiprocessors;
  const int64_t tiles = CeilDiv(problem.n, Tiles<T>::kKeys) + 1;
  const int64_t free = problem.scratch_size - StreamScratch::Words(tiles, 0);
  const int64_t room = std::min(free / (2 * blocks), limits.room);
  if (room < kMinRoom) return TooLittleScratch();
  const size_t bytes = sizeof(StreamSpace) + room * sizeof(Candidate);
  return StatusOf(kName, LaunchTogether(stream, blocks, 0, bytes, SelectStreaming<T, GridTeam>,
                                        problem, static_cast<uint32_t>(room)));
}

template <typename T>
ffi::Error Select(cudaStream_t stream, const SelectionProblem<T>& problem) {
  const Limits* limits = nullptr;
  const cudaError_t error = LimitsOfDevice<T>(&limits);
  if (error != cudaSuccess) return StatusOf(kName, error);
  const int64_t n = problem.n;
  const bool many_rows = problem.batch >= 2 * limits->multiprocessors;
  if (n <= limits->keys_small_block && (n <= kFewKeys || (many_rows && n <= kAloneInBlock))) {
    return StatusOf(kName, SelectInBlocks<kSmallBlock>(stream, problem));
  }
  if (n <= limits->keys_large_block &&
      (n <= kAloneInBlock || problem.batch >= limits->multiprocessors / 2)) {
    return StatusOf(kName, SelectInBlocks<kLargeBlock>(stream, problem));
  }
  if (problem.scratch_size < TeamScratch::Words(TeamListCapacity(n, problem.capacity))) {
    return TooLittleScratch();
  }
  if (limits->has_clusters && KeysOfBlock(n, kClusterSize) <= limits->keys_cluster_block &&
      (n <= kAloneInCluster || problem.batch > 1)) {
    const int64_t clusters = std::min(problem.batch, kMaxGridX / kClusterSize);
    return StatusOf(kName, SelectInTeams<T, Cluster>(stream, problem, clusters,
                                                         kClusterSize, kClusterSize));
  }
  const int blocks = static_cast<int>(
      std::min<int64_t>(limits->multiprocessors, CeilDiv(n, kKeysOfTeamBlock)));
  if (KeysOfBlock(n, blocks) <= limits->keys_grid_block) {
    return StatusOf(kName, SelectInTeams<T, GridTeam>(stream, problem, 1, blocks, 0));
  }
  return SelectLarge(stream, problem, *limits);
}

template <typename T>
ffi::Error SelectAs(cudaStream_t stream, const ffi::AnyBuffer& scores,
                    ffi::Buffer<ffi::S32>& counts, ffi::Result<ffi::Buffer<ffi::S32>>& winners,
                    ffi::Result<ffi::Buffer<ffi::U32>>& scratch) {
  SelectionProblem<T> problem{};
  const Dimensions result = winners->dimensions();
  if (!MapBatch(scores.dimensions(), 1, result, 1, &problem.scores_at) ||
      !MapBatch(counts.dimensions(), 0, result, 1, &problem.counts_at) ||
      BatchSize(scratch->dimensions(), 1) != BatchSize(result, 1) ||
      scratch->dimensions().back() % 4 != 0) {  // rows of scratch start at 16-byte boundaries
    return ffi::Error::InvalidArgument("select_winners: batch or scratch dimensions do not fit");
  }
  problem.scores = static_cast<const T*>(scores.untyped_data());
  problem.counts = counts.typed_data();
  problem.winners = winners->typed_data();
  problem.scratch = scratch->typed_data();
  problem.batch = BatchSize(result, 1);
  problem.n = scores.dimensions().back();
  problem.capacity = result.back();
  problem.scratch_size = scratch->dimensions().back();
  if (problem.batch == 0 || problem.capacity == 0) return ffi::Error::Success();
  return Select(stream, problem);
}

ffi::Error Handler(cudaStream_t stream, ffi::AnyBuffer scores, ffi::Buffer<ffi::S32> counts,
                   ffi::ResultBuffer<ffi::S32> winners, ffi::ResultBuffer<ffi::U32> scratch) {
  switch (scores.element_type()) {
    case ffi::F32:
      return SelectAs<float>(stream, scores, counts, winners, scratch);
    case ffi::BF16:
      return SelectAs<BFloat16>(stream, scores, counts, winners, scratch);
    case ffi::S32:
      return SelectAs<int32_t>(stream, scores, counts, winners, scratch);
    case ffi::U16:
      return SelectAs<uint16_t>(stream, scores, counts, winners, scratch);
    case ffi::U8:
      return SelectAs<uint8_t>(stream, scores, counts, winners, scratch);
    default:
      return ffi::Error::InvalidArgument("select_winners: no kernel for this type of scores");
  }
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxSelectWinners, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<xla::ffi::AnyBuffer>()                // scores
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()    // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::S32>>()    // winners
                                  .Ret<xla::ffi::Buffer<xla::ffi::U32>>(),   // scratch
                              {xla::ffi::Traits::kCmdBufferCompatible});
