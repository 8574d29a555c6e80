// Who has which sums, and which synapses, where a problem is summed in one launch.
#ifndef BRAINJAX_PROPAGATION_DEALT_CUH_
#define BRAINJAX_PROPAGATION_DEALT_CUH_

#include <algorithm>
#include <cstdint>

#include "propagation_launch.cuh"
#include "propagation_tiles.cuh"

namespace brainjax {
namespace propagation {

constexpr int kTogetherThreads = 1024;
constexpr int kMinTogether = 2, kMaxTogether = 1 << 8;  // blocks
constexpr uint32_t kAdders = 8;  // threads that add up what one tile has for a block
constexpr uint32_t kMostTiles = kTogetherThreads / kAdders;
constexpr int kSynapsesOfThread = 8;  // that it sorts at a time, at most
constexpr int64_t kTogetherTile = kTogetherThreads * kSynapsesOfThread;
constexpr int64_t kTileUnit = 4 * kWarp;  // tiles are multiples: whole vectors
constexpr uint32_t kGroup = 4 * kWarp;    // neighbours whose sums one block has

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

  // Stands for it where there is no target. Each lane has another, as additions to one number wait
  // for each other.
  __device__ static uint32_t Nowhere() { return (kMaxTogether + Lane()) << kPlaceBits; }
  __device__ static bool Exists(uint32_t located) {
    return located < kMaxTogether << kPlaceBits;
  }

  __device__ __forceinline__ uint32_t Target(uint32_t block, uint32_t place) const {
    return (place / kGroup * blocks + block) * kGroup + place % kGroup;
  }
};

// What the block that sorts a tile tells each block: where it finds what is onto its sums.
struct TileRange {
  static constexpr int kBeginBits = 11, kLengthBits = 14;
  static_assert(kTogetherTile / kAdders + kMaxTogether < 1 << kBeginBits, "whole sectors");
  static_assert(kTogetherTile < 1 << kLengthBits);
  static_assert(kBeginBits + kLengthBits + TileForm::kCodeBits <= 32);

  uint32_t word;

  __device__ static TileRange Of(uint32_t begin, uint32_t length, TileForm form) {
    return {(form.Code() << kLengthBits | length) << kBeginBits | begin / kAdders};
  }
  __device__ uint32_t Begin() const { return word % (1u << kBeginBits) * kAdders; }
  __device__ uint32_t Length() const { return word >> kBeginBits & ((1u << kLengthBits) - 1); }
  __device__ TileForm Form() const { return TileForm(word >> (kBeginBits + kLengthBits)); }
};

// How the blocks of a device share a call, and where in its scratch they leave what they sorted. A
// sorted synapse is what its form says and, in the last bits, the place of its target. Each range
// begins with a whole sector of memory.
struct TogetherPlan {
  static constexpr int64_t kSynapseBytes = sizeof(uint32_t) + sizeof(uint16_t);
  static constexpr int64_t kSpare = kTogetherThreads;  // see SortedTile

  DealtSums sums;
  uint32_t tiles;    // for as many blocks
  uint32_t tile;     // the most synapses that a block sorts at a time
  uint32_t sorted;   // room that they take
  uint32_t* ranges;  // of each tile, for each block: see TileRange
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
        (call.scratch.stride / tiles - kMaxTogether) * int64_t{sizeof(int32_t)};
    const int64_t shared_bytes = ShareOf(device, 1) - plan.SumBytes();
    const int64_t room =
        std::min(scratch_bytes, shared_bytes - kSpare * kSynapseBytes) / kSynapseBytes - padding;
    plan.tile = static_cast<uint32_t>(
        std::clamp<int64_t>(room, 0, kTogetherTile) / kTileUnit * kTileUnit);
    plan.sorted = plan.tile + static_cast<uint32_t>(padding);
    plan.ranges = reinterpret_cast<uint32_t*>(call.scratch.words);
    plan.synapses = plan.ranges + tiles * kMaxTogether;
    plan.highs = reinterpret_cast<uint16_t*>(plan.synapses + tiles * plan.sorted);
    return plan;
  }

  // Whether the device and the scratch have room for it.
  bool Fits(const Device& device) const {
    return device.multiprocessors >= kMinTogether && tile >= kMinTile &&
           sums.size <= int64_t{1} << kPlaceBits;
  }

  // What the tile of a block has for another.
  __device__ uint32_t* RangeOf(uint32_t sorter, uint32_t adder) const {
    return ranges + sorter * kMaxTogether + adder;
  }

  int64_t SumBytes() const { return sums.size * int64_t{sizeof(int32_t)}; }
  int64_t SharedBytes() const { return SumBytes() + (sorted + kSpare) * kSynapseBytes; }
};

// A sorted tile in the shared memory of its block. Behind it each thread has a place for what does
// not exist.
struct SortedTile {
  uint32_t spare;
  uint32_t* synapses;
  uint16_t* highs;

  __device__ SortedTile(int32_t* memory, const TogetherPlan& plan)
      : spare(plan.sorted),
        synapses(reinterpret_cast<uint32_t*>(memory)),
        highs(reinterpret_cast<uint16_t*>(synapses + spare + TogetherPlan::kSpare)) {}
};

}  // namespace propagation
}  // namespace brainjax

#endif  // BRAINJAX_PROPAGATION_DEALT_CUH_
