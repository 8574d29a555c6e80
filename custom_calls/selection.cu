// Indices of the `count` largest scores in ascending order; of equal scores the lowest index.
//
// By size of a row: one block, a cluster of blocks, or the whole grid hold its keys in shared
// memory; larger rows are streamed.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "handler.h"
#include "launch.h"
#include "selection_resident.cuh"
#include "selection_streaming.cuh"

namespace brainjax {
namespace {

constexpr char kName[] = "select_winners";
constexpr int64_t kAloneInBlock = 16 * 1024;     // from more, several blocks select sooner than one
constexpr int64_t kAloneInCluster = 128 * 1024;  // from more, the whole grid does
constexpr int64_t kKeysOfTeamBlock = 1024;       // fewer are not worth a block of the grid
constexpr int kClusterSize = 8;
constexpr int64_t kFewKeys = 1024, kSomeKeys = 12 * 1024;  // for which few threads will do
constexpr int64_t kManyKeys = 48 * 1024;                   // counts of a block have 16 bits
constexpr int64_t kStaticBytes = 24 * 1024;  // at most, beside the keys in shared memory
static_assert(sizeof(ClusterSelectSpace<kTeamThreads>) <= kStaticBytes);

template <typename T, typename Keys, int kBlocks>
ffi::Error SelectInBlocks(cudaStream_t stream, const SelectionProblem<T>& problem) {
  for (int64_t first = 0; first < problem.batch; first += kMaxGridX) {
    const auto blocks = static_cast<unsigned>(std::min(problem.batch - first, kMaxGridX));
    const LaunchSize size{blocks, Keys::kThreads, BytesOfScores<Keys>(problem.n)};
    const cudaError_t error =
        StartKernel(stream, size, {}, SelectInBlock<T, Keys, kBlocks>, problem, first);
    if (error != cudaSuccess) return StatusOf(kName, error);
  }
  return ffi::Error::Success();
}

template <typename T, typename Keys, typename Team>
ffi::Error SelectInTeams(cudaStream_t stream, const SelectionProblem<T>& problem, int64_t blocks,
                         int64_t bytes, std::optional<cudaLaunchAttribute> together) {
  const LaunchSize size{static_cast<unsigned>(blocks), Keys::kThreads, bytes};
  return StatusOf(kName, StartKernel(stream, size, together, SelectInTeam<T, Keys, Team>, problem));
}

ffi::Error TooLittleScratch() {
  return ffi::Error::InvalidArgument("select_winners: too little scratch memory");
}

template <typename T>
ffi::Error SelectLarge(cudaStream_t stream, const SelectionProblem<T>& problem, int blocks,
                       int64_t shared_memory) {
  const int64_t tiles = CeilDiv(problem.n, Tiles<T>::kKeys) + 1;
  const int64_t free = problem.scratch_size - StreamScratch::Words(tiles, 0);
  const auto bytes = [](int64_t room) -> int64_t {
    return sizeof(StreamSpace) + room * sizeof(TileCandidate) + PlaceBits::Words(room) * 4;
  };
  int64_t room = std::min(free / (2 * blocks), kMaxRoom) / kStreamThreads * kStreamThreads;
  while (room > 0 && bytes(room) > shared_memory) room -= kStreamThreads;
  if (room <= 0) return TooLittleScratch();
  const LaunchSize size{static_cast<unsigned>(blocks), kStreamThreads, bytes(room)};
  return StatusOf(kName, StartKernel(stream, size, AllTogether(), SelectStreaming<T, GridTeam>,
                                     problem, static_cast<uint32_t>(room)));
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
  const bool alone = n <= kAloneInBlock || (many_rows && n <= kManyKeys);
  if (alone && BytesOfScores<Large>(n) <= room) {
    return SelectInBlocks<T, Large, 1>(stream, problem);
  }
  if (problem.scratch_size < TeamScratch::Words(ListCapacityOfRow(n, problem.capacity))) {
    return TooLittleScratch();
  }
  if (device->architecture >= 9 && in_cluster <= room &&
      (n <= kAloneInCluster || problem.batch > 1)) {
    const int64_t clusters = std::min(problem.batch, kMaxGridX / kClusterSize);
    return SelectInTeams<T, OfTeam, FixedClusterTeam<kClusterSize>>(
        stream, problem, clusters * kClusterSize, in_cluster, InClusters(kClusterSize));
  }
  const int processors = std::min(device->multiprocessors, kMaxTeam);
  const int blocks =
      static_cast<int>(std::min<int64_t>(processors, CeilDiv(n, kKeysOfTeamBlock)));
  const int64_t in_grid = BytesOfScores<OfTeam>(CeilDiv(n, blocks));
  if (in_grid > room) return SelectLarge(stream, problem, blocks, device->shared_memory);
  return SelectInTeams<T, OfTeam, GridTeam>(stream, problem, blocks, in_grid, AllTogether());
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
