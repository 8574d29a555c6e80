// Who has which sums, and which synapses, where a problem is summed in one launch.
#ifndef BRAINJAX_PROPAGATION_DEALT_CUH_
#define BRAINJAX_PROPAGATION_DEALT_CUH_

#include <algorithm>
#include <cstdint>

#include "propagation_launch.cuh"

namespace brainjax {
namespace propagation {

constexpr int kTogetherThreads = 1024;
constexpr int kMinTogether = 2, kMaxTogether = 1 << 8;  // blocks
constexpr uint32_t kAdders = 8;  // threads that add up what one tile has for a block
constexpr uint32_t kMostTiles = kTogetherThreads / kAdders;
constexpr int64_t kTogetherTile = 1 << 13;  // synapses that a block sorts at a time, at most
constexpr int64_t kTileUnit = 4 * kWarp;    // tiles are multiples: whole vectors
constexpr uint32_t kGroup = 4 * kWarp;      // neighbours whose sums one block has

// Which block has the sum of a target: groups of neighbours are dealt to the blocks in turn, so
// that each has its part of any region that synapses are onto.
struct DealtSums {
  uint32_t blocks, size, factor;  // `size` of each block, at most

  static DealtSums Of(int64_t num_post, int64_t blocks) {
    const int64_t turns = CeilDiv(CeilDiv(num_post, int64_t{kGroup}), blocks);
    // Above 2^32 / blocks by at most 1: quotients of up to 2^24 groups are exact.
    return {static_cast<uint32_t>(blocks), static_cast<uint32_t>(turns * kGroup),
            static_cast<uint32_t>((int64_t{1} << 32) / blocks + 1)};
  }

  // The block and, in the last bits, the place there.
  __device__ __forceinline__ uint32_t Locate(uint32_t target) const {
    const uint32_t group = target / kGroup, turn = __umulhi(group, factor);
    return (group - turn * blocks) << kPlaceBits | turn * kGroup | target % kGroup;
  }
  __device__ __forceinline__ uint32_t Target(uint32_t block, uint32_t place) const {
    return (place / kGroup * blocks + block) * kGroup + place % kGroup;
  }
};

// What a block tells the others of the tile that it has sorted.
struct TileTable {
  uint32_t ranges[kMaxTogether];  // for each block: where they begin and, in the high half, end
  uint32_t form;                  // see TileForm
  uint32_t padding[3];            // to whole vectors
};

// How the blocks of a device share a call, and where in its scratch they leave what they sorted. A
// sorted synapse is what its form says and, in the last bits, the place of its target. Each range
// begins with a whole sector of memory.
struct TogetherPlan {
  static constexpr int64_t kReadBytes = 2 * sizeof(int32_t) + sizeof(uint16_t);  // of a synapse
  static constexpr int64_t kSortedBytes = sizeof(uint32_t) + sizeof(uint16_t);

  DealtSums sums;
  uint32_t tiles;   // for as many blocks
  uint32_t tile;    // the most synapses that a block sorts at a time
  uint32_t sorted;  // room that they take
  TileTable* tables;
  uint32_t* synapses;
  uint16_t* highs;  // high halves of contributions, if the form has such

  template <typename W>
  static TogetherPlan Of(const Device& device, const Call<W>& call) {
    const int64_t blocks = std::clamp(device.multiprocessors, kMinTogether, kMaxTogether);
    const int64_t tiles = std::min<int64_t>(blocks, kMostTiles), padding = blocks * kAdders;
    TogetherPlan plan;
    plan.sums = DealtSums::Of(call.batch.first.num_post, blocks);
    plan.tiles = static_cast<uint32_t>(tiles);
    const int64_t scratch_bytes =
        call.scratch.stride * int64_t{sizeof(int32_t)} / tiles - sizeof(TileTable);
    const int64_t shared_bytes = ShareOf(device, 1) - plan.SumBytes();
    const int64_t most =
        std::min({kTogetherTile, scratch_bytes / kSortedBytes - padding,
                  (shared_bytes - padding * kSortedBytes) / (kReadBytes + kSortedBytes)});
    plan.tile = static_cast<uint32_t>(std::max<int64_t>(most, 0) / kTileUnit * kTileUnit);
    plan.sorted = plan.tile + static_cast<uint32_t>(padding);
    plan.tables = reinterpret_cast<TileTable*>(call.scratch.words);
    plan.synapses = reinterpret_cast<uint32_t*>(plan.tables + tiles);
    plan.highs = reinterpret_cast<uint16_t*>(plan.synapses + tiles * plan.sorted);
    return plan;
  }

  // Whether the device and the scratch have room for it.
  bool Fits(const Device& device) const {
    return device.multiprocessors >= kMinTogether && tile >= kMinTile &&
           sums.size <= int64_t{1} << kPlaceBits;
  }

  BRAINJAX_HOST_DEVICE int64_t SumBytes() const { return sums.size * int64_t{sizeof(int32_t)}; }
  int64_t SharedBytes() const {
    return SumBytes() + tile * kReadBytes + sorted * kSortedBytes;
  }
};

// A tile in the shared memory of its block, as it was read and as it is sorted.
struct TogetherTile {
  int32_t* located;  // see DealtSums; -1: none
  int32_t* contributions;
  uint32_t* sorted;
  uint16_t* sorted_highs;
  uint16_t* ranks;  // among those for one block

  __device__ TogetherTile(int32_t* memory, const TogetherPlan& plan)
      : located(memory),
        contributions(located + plan.tile),
        sorted(reinterpret_cast<uint32_t*>(contributions + plan.tile)),
        sorted_highs(reinterpret_cast<uint16_t*>(sorted + plan.sorted)),
        ranks(sorted_highs + plan.sorted) {}
};

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_DEALT_CUH_
