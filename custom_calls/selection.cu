// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
//
// By size of a row: one block, a cluster of blocks, or the whole grid hold its keys in shared memory;
// larger rows are streamed.
#include <algorithm>
#include <cstdint>

#include "handler.h"
#include "selection_resident.cuh"
#include "selection_streaming.cuh"

namespace brainjax {
namespace {

constexpr char kName[] = "select_winners";
constexpr int64_t kAloneInBlock = 16 * 1024;     // from more, several blocks select sooner than one
constexpr int64_t kAloneInCluster = 128 * 1024;  // from more, the whole grid does
constexpr int64_t kKeysOfTeamBlock = 1024;       // fewer are not worth a block of the grid
constexpr int kClusterSize = 8;
using Cluster = FixedClusterTeam<kClusterSize>;
constexpr int64_t kFewKeys = 1024, kSomeKeys = 12 * 1024;  // for which few threads will do
constexpr int64_t kManyKeys = 48 * 1024;                   // counts of a block have 16 bits
constexpr int64_t kStaticBytes = 24 * 1024;  // at most, beside the keys in shared memory
static_assert(sizeof(TeamSelectSpace<kTeamThreads>) <= kStaticBytes);

// Lets a kernel use so much shared memory.
template <typename Kernel>
cudaError_t AllowSharedMemory(Kernel kernel, int64_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

template <typename T, typename Keys, int kBlocks>
ffi::Error SelectInBlocks(cudaStream_t stream, const SelectionProblem<T>& problem) {
  const int64_t blocks = std::min(problem.batch, kMaxGridX);
  const auto kernel = SelectInBlock<T, Keys, kBlocks>;
  const int64_t bytes = BytesOfScores<Keys>(problem.n);
  const cudaError_t error = AllowSharedMemory(kernel, bytes);
  if (error != cudaSuccess) return StatusOf(kName, error);
  kernel<<<static_cast<unsigned>(blocks), Keys::kThreads, bytes, stream>>>(problem);
  return StatusOf(kName, cudaGetLastError());
}

// A launch whose blocks run together: clusters of `cluster` blocks, or all of a grid.
template <typename... Parameters, typename... Arguments>
ffi::Error LaunchTogether(cudaStream_t stream, int64_t blocks, int cluster, int threads,
                          int64_t bytes, void (*kernel)(Parameters...), Arguments... arguments) {
  const cudaError_t error = AllowSharedMemory(kernel, bytes);
  if (error != cudaSuccess) return StatusOf(kName, error);
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
  config.blockDim = threads;
  config.dynamicSmemBytes = bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return StatusOf(kName, cudaLaunchKernelEx(&config, kernel, arguments...));
}

ffi::Error TooLittleScratch() {
  return ffi::Error::InvalidArgument("select_winners: too little scratch memory");
}

template <typename T>
ffi::Error SelectLarge(cudaStream_t stream, const SelectionProblem<T>& problem, int blocks,
                       size_t shared_memory) {
  const int64_t tiles = CeilDiv(problem.n, Tiles<T>::kKeys) + 1;
  const int64_t free = problem.scratch_size - StreamScratch::Words(tiles, 0);
  const auto bytes = [](int64_t room) {
    return sizeof(StreamSpace) + room * sizeof(TileCandidate) + PlaceBits::Words(room) * 4;
  };
  int64_t room = std::min(free / (2 * blocks), kMaxRoom) / kStreamThreads * kStreamThreads;
  while (room > 0 && bytes(room) > shared_memory) room -= kStreamThreads;
  if (room == 0) return TooLittleScratch();
  return LaunchTogether(stream, blocks, 0, kStreamThreads, bytes(room), SelectStreaming<T, GridTeam>, problem,
                        static_cast<uint32_t>(room));
}

template <typename T>
ffi::Error Select(cudaStream_t stream, const SelectionProblem<T>& problem) {
  const Device* device = nullptr;
  const cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf(kName, error);
  using Small = BlockKeys<128, kPerVector<T>>;
  using Middle = BlockKeys<512, kPerVector<T>>;
  using Large = BlockKeys<1024, kPerVector<T>>;
  using OfTeam = BlockKeys<kTeamThreads, kPerVector<T>>;
  const int64_t n = problem.n, room = device->shared_memory - kStaticBytes;
  const int64_t in_cluster = BytesOfScores<OfTeam>(CeilDiv(n, kClusterSize));
  if (n <= kFewKeys) return SelectInBlocks<T, Small, 12>(stream, problem);
  if (n <= kSomeKeys) {
    return problem.batch <= device->multiprocessors
               ? SelectInBlocks<T, Middle, 1>(stream, problem)
               : SelectInBlocks<T, Middle, 3>(stream, problem);
  }
  const bool many_rows = problem.batch >= device->multiprocessors / 2;
  if (n <= kAloneInBlock || (many_rows && n <= kManyKeys && BytesOfScores<Large>(n) <= room)) {
    return SelectInBlocks<T, Large, 1>(stream, problem);
  }
  if (problem.scratch_size < TeamScratch::Words(TeamListCapacity(n, problem.capacity))) {
    return TooLittleScratch();
  }
  if (device->architecture >= 9 && in_cluster <= room &&
      (n <= kAloneInCluster || problem.batch > 1)) {
    const int64_t clusters = std::min(problem.batch, kMaxGridX / kClusterSize);
    return LaunchTogether(stream, clusters * kClusterSize, kClusterSize, kTeamThreads,
                          in_cluster, SelectInTeam<T, OfTeam, Cluster>, problem);
  }
  const int processors = std::min(device->multiprocessors, kMaxTeam);
  const int blocks =
      static_cast<int>(std::min<int64_t>(processors, CeilDiv(n, kKeysOfTeamBlock)));
  const int64_t in_grid = BytesOfScores<OfTeam>(CeilDiv(n, blocks));
  if (in_grid > room) return SelectLarge(stream, problem, blocks, device->shared_memory);
  return LaunchTogether(stream, blocks, 0, kTeamThreads, in_grid, SelectInTeam<T, OfTeam, GridTeam>,
                        problem);
}

template <typename T>
ffi::Error SelectAs(cudaStream_t stream, const Selection<T>& call) {
  if (call.batch == 0 || call.capacity == 0) return ffi::Error::Success();
  if (call.scratch_size % 4 != 0) {  // rows of scratch start at 16-byte boundaries
    return ffi::Error::InvalidArgument("select_winners: scratch must be a multiple of 16 bytes");
  }
  return Select(stream, SelectionProblem<T>{call});
}

ffi::Error Handler(cudaStream_t stream, SelectionOperands operands) {
  return operands.With([&](const auto& call) { return SelectAs(stream, call); });
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxSelectWinners, brainjax::Unpacked(brainjax::Handler),
                              brainjax::SelectionOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
