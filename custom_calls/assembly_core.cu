// The round of an area in one launch: by a cluster of blocks for each brain where all its keys fit
// into the shared memory of a block, else by all multiprocessors, brain after brain.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "area_round.cuh"
#include "assembly_core.h"
#include "handler.h"
#include "launch.h"

namespace brainjax {
namespace {

// Who advances a brain: a cluster of so many blocks, or the whole grid.
struct TeamPlan {
  bool is_cluster;
  int size;
  int64_t width;  // of a strip
  bool many;      // more blocks than multiprocessors: small ones
};

// A cluster meets faster than a grid, but reads with few multiprocessors: it is for a small area,
// and for several brains at once. Without clusters a block of its own may do for a brain of many.
TeamPlan ChooseTeam(const AreaRound& round, const Device& device) {
  constexpr int64_t kSmallArea = 2048, kLargeArea = 32768, kLargestStrip = 4096;
  constexpr int64_t kNarrow = 128, kWide = 1024;  // columns of a block
  constexpr int64_t kLargestCluster = 8;
  const int64_t n = round.num_post;
  const bool has_clusters = device.architecture >= 9;
  TeamPlan plan = {};
  plan.is_cluster = has_clusters ? n <= (round.batch > 1 ? kLargeArea : kSmallArea)
                                 : n <= kLargestStrip && round.batch >= device.multiprocessors;
  int64_t blocks = std::min(device.multiprocessors, kMaxTeam);
  if (plan.is_cluster) {
    const auto narrow_enough = [&](int64_t size) {
      const bool busy = size * round.batch >= 2 * device.multiprocessors;
      return CeilDiv(n, size) <= (busy ? kWide : kNarrow);
    };
    blocks = 1;
    while (has_clusters && blocks < kLargestCluster && !narrow_enough(blocks)) blocks *= 2;
  }
  // Strips start at multiples of 16 bytes where rows do.
  plan.width = CeilDiv(CeilDiv(n, blocks), 8) * 8;
  plan.size = static_cast<int>(plan.is_cluster ? blocks : CeilDiv(n, plan.width));
  plan.many = plan.is_cluster && plan.size * round.batch > device.multiprocessors;
  return plan;
}

template <typename L, typename Team>
cudaError_t Start(cudaStream_t stream, AreaRound round, const TeamPlan& team, int64_t blocks,
                  std::optional<cudaLaunchAttribute> together) {
  round.list_capacity = ListCapacityBesidePosts(round, team.size);
  const AreaPlan plan = PlanArea<L>(round, team.width, team.size);
  const AreaMemory<L> memory{plan, round.num_fibers, round.k};
  const LaunchSize size{static_cast<unsigned>(blocks), L::kThreads, memory.Bytes()};
  return StartKernel(stream, size, together, AdvanceArea<L, Team>, round, plan);
}

template <typename L>
cudaError_t StartTeams(cudaStream_t stream, const AreaRound& round, const TeamPlan& team) {
  if (team.is_cluster) {
    return Start<L, ClusterTeam>(stream, round, team, round.batch * team.size,
                                 InClusters(team.size));
  }
  return Start<L, GridTeam>(stream, round, team, team.size, AllTogether());
}

// The fewer columns, the more groups of threads share their rows.
template <typename W>
cudaError_t ChooseLayout(cudaStream_t stream, const AreaRound& round, const TeamPlan& team) {
  using Wide = StripLayout<W, 512, 4, true>;
  using Middle = StripLayout<W, 512, 8, true>;
  using Narrow = StripLayout<W, 512, 16, true>;
  using Small = StripLayout<W, 256, 8, true, 4>;
  using Misaligned = StripLayout<W, 512, 8, false>;
  bool aligned = round.num_post * sizeof(W) % 16 == 0;
  for (int f = 0; f < round.num_fibers; ++f) {
    aligned &= reinterpret_cast<uintptr_t>(round.fibers[f].weights) % 16 == 0;
  }
  if (!aligned) return StartTeams<Misaligned>(stream, round, team);
  if (team.many) return StartTeams<Small>(stream, round, team);
  if (team.width <= Narrow::kColumns) return StartTeams<Narrow>(stream, round, team);
  if (team.width <= Middle::kColumns) return StartTeams<Middle>(stream, round, team);
  return StartTeams<Wide>(stream, round, team);
}

ffi::Error Handler(cudaStream_t stream, AreaOperands operands) {
  AreaRound round;
  const ffi::Error invalid = operands.Map(&round);
  if (invalid.failure() || round.batch == 0) return invalid;
  const Device* device = nullptr;
  cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf("assembly_core", error);
  const TeamPlan team = ChooseTeam(round, *device);
  if (round.batch * team.size > kMaxGridX || ListCapacityBesidePosts(round, team.size) < 2) {
    return ffi::Error::InvalidArgument("assembly_core: too many brains, or too little scratch");
  }
  error = operands.WeightType() == ffi::F32 ? ChooseLayout<float>(stream, round, team)
                                            : ChooseLayout<uint16_t>(stream, round, team);
  return StatusOf("assembly_core", error);
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAssemblyCore, brainjax::Unpacked(brainjax::Handler),
                              brainjax::AreaOperands::Bind().Ctx<brainjax::StreamContext>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
