// The round of an area in one launch: by a cluster of blocks for each brain where all its keys fit
// into the shared memory of a block, else by all multiprocessors, brain after brain.
#include <algorithm>
#include <cstdint>

#include "area_round.cuh"
#include "assembly_core.h"
#include "handler.h"

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
  int64_t blocks = device.multiprocessors;
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
cudaError_t Launch(cudaStream_t stream, AreaRound round, const TeamPlan& team,
                   cudaLaunchAttribute attribute, int64_t blocks) {
  round.list_capacity = TeamListCapacity(round.scratch_size, team.size);
  const AreaPlan plan = PlanArea<L>(round, team.width, team.size);
  const AreaMemory<L> memory{plan, round.num_fibers, round.k};
  const auto kernel = AdvanceArea<L, Team>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(memory.Bytes()));
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(L::kThreads);
  config.dynamicSmemBytes = memory.Bytes();
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = team.is_cluster && team.size == 1 ? 0 : 1;  // a block needs no cluster
  return cudaLaunchKernelEx(&config, kernel, round, plan);
}

template <typename L>
cudaError_t LaunchTeams(cudaStream_t stream, const AreaRound& round, const TeamPlan& team) {
  cudaLaunchAttribute attribute;
  if (team.is_cluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(team.size), 1, 1};
    return Launch<L, ClusterTeam>(stream, round, team, attribute, round.batch * team.size);
  }
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  return Launch<L, GridTeam>(stream, round, team, attribute, team.size);
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
  if (!aligned) return LaunchTeams<Misaligned>(stream, round, team);
  if (team.many) return LaunchTeams<Small>(stream, round, team);
  if (team.width <= Narrow::kColumns) return LaunchTeams<Narrow>(stream, round, team);
  if (team.width <= Middle::kColumns) return LaunchTeams<Middle>(stream, round, team);
  return LaunchTeams<Wide>(stream, round, team);
}

ffi::Error Handler(cudaStream_t stream, AreaOperands operands) {
  AreaRound round;
  const ffi::Error invalid = operands.Map(&round);
  if (invalid.failure() || round.batch == 0) return invalid;
  const Device* device = nullptr;
  cudaError_t error = FindDevice(&device);
  if (error != cudaSuccess) return StatusOf("assembly_core", error);
  const TeamPlan team = ChooseTeam(round, *device);
  if (round.batch * team.size > kMaxGridX || TeamListCapacity(round.scratch_size, team.size) < 2) {
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
