// received[j] = sum of values[i] * weights[rows[i], j], in the order of accumulate_rows_reference.
//
//   s_p = ((0 + t_p) + t_(p+32)) + t_(p+64) + ...          p = 0..31,  t_i = values[i] * weights[rows[i], j]
//   s_p = s_p + s_(p+h)  for p < h,  h = 16, 8, 4, 2, 1     received = s_0
//
// A block owns a strip of columns. Its threads form kGroups groups; group g owns the lanes g,
// g + kGroups, g + 2 kGroups ... of the strip, hence the terms g, g + kGroups ...: the first
// halvings happen inside a thread, the others through shared memory.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "batch.h"
#include "launch.h"
#include "numbers.h"

namespace brainjax {
namespace {

constexpr int kLanes = 32;
constexpr int kThreads = 256;
constexpr int kChunk = 1024;          // terms staged in shared memory at a time
constexpr int kInFlight = 8;          // rows that a thread has asked for before it adds the first
constexpr int64_t kEnoughBlocks = 256;  // two a multiprocessor

// One matrix and one active set, or a batch of them.
template <typename W>
struct Problem {
  const W* weights;
  const int32_t* rows;
  const float* values;
  const int32_t* counts;
  float* received;
  BatchOffsets weights_at, rows_at, values_at, counts_at;
  int64_t batch, capacity, num_pre, num_post;
  bool weights_shared;  // all batch elements read the same matrix
};

// How a block divides its work: kGroups groups of threads, each thread kWidth columns wide.
template <typename W, int kGroupCount, bool kIsAligned>
struct Layout {
  static constexpr bool kAligned = kIsAligned;  // 16-byte loads
  static constexpr int kGroups = kGroupCount;
  static constexpr int kGroupThreads = kThreads / kGroups;
  static constexpr int kThreadLanes = kLanes / kGroups;
  static constexpr int kWidth = kAligned ? 16 / sizeof(W) : 4;
  static constexpr int kColumns = kGroupThreads * kWidth;
  // Blocks a multiprocessor: with registers for one more, fewer loads would be in flight.
  static constexpr int kMinBlocks = kAligned && kThreadLanes * kWidth <= 16 ? 3 : 2;
  static_assert(kInFlight % kThreadLanes == 0 && kChunk % (kGroups * kInFlight) == 0);

  // Column v of thread t: contiguous where one load brings all, else neighbours for neighbours.
  static __device__ int Column(int t, int v) {
    return kAligned ? t * kWidth + v : t + v * kGroupThreads;
  }
};

// One term of the sum. Row -1: nothing to read, a term of +0, which changes no bit.
struct Term {
  int32_t row;
  float value;
};

// Copies the terms [start, start + size) into shared memory, those from `count` on as nothing.
__device__ void StageTerms(const int32_t* rows, const float* values, uint32_t start, uint32_t size,
                           uint32_t count, int64_t num_pre, Term* terms) {
  for (uint32_t i = threadIdx.x; i < size; i += kThreads) {
    Term term{-1, 0.0f};
    if (start + i < count) {
      const int32_t row = __ldg(rows + start + i);
      const float value = __ldg(values + start + i);
      if (row >= 0 && row < num_pre) term = {row, value};
    }
    terms[i] = term;
  }
}

// The weights of one row in the columns of one thread.
template <typename W, typename L>
struct Piece {
  alignas(16) W weights[L::kWidth];

  // `left`: columns from row[0] to the end of the row.
  __device__ void Load(const W* row, bool exists, int64_t left) {
    if constexpr (L::kAligned) {
      uint4 bits = make_uint4(0, 0, 0, 0);
      if (exists && left > 0) bits = __ldg(reinterpret_cast<const uint4*>(row));
      memcpy(weights, &bits, sizeof(bits));
    } else {
      for (int v = 0; v < L::kWidth; ++v) {
        weights[v] = 0;
        if (exists && L::Column(0, v) < left) weights[v] = __ldg(row + L::Column(0, v));
      }
    }
  }
};

// The sums of one thread: its lanes by its columns.
template <typename W, typename L>
struct ThreadSums {
  float sums[L::kThreadLanes][L::kWidth] = {};

  // Adds the staged terms of this thread's group, a multiple of kInFlight.
  __device__ void Add(const Term* terms, int count, const W* strip, int64_t num_post,
                      int64_t left) {
    for (int i = 0; i < count; i += kInFlight) {
      Piece<W, L> pieces[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const int32_t row = terms[(i + u) * L::kGroups].row;
        pieces[u].Load(strip + row * num_post, row >= 0, left);
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const float value = terms[(i + u) * L::kGroups].value;
#pragma unroll
        for (int v = 0; v < L::kWidth; ++v) {
          float& sum = sums[u % L::kThreadLanes][v];
          sum = __fadd_rn(sum, __fmul_rn(value, ToFloat(pieces[u].weights[v])));
        }
      }
    }
  }

  // Lanes g + 16 join g, and so on down to the last two of this thread.
  __device__ void MeetInThread() {
#pragma unroll
    for (int half = L::kThreadLanes / 2; half > 0; half /= 2) {
#pragma unroll
      for (int p = 0; p < half; ++p) {
#pragma unroll
        for (int v = 0; v < L::kWidth; ++v) {
          sums[p][v] = __fadd_rn(sums[p][v], sums[p + half][v]);
        }
      }
    }
  }
};

// The remaining halvings of one column: the sum of the groups p, p + kStep, p + 2 kStep ...
template <typename L, int kStep = 1>
__device__ float MeetGroups(const float (*sums)[L::kColumns], int column, int p = 0) {
  if constexpr (kStep == L::kGroups) {
    return sums[p][column];
  } else {
    return __fadd_rn(MeetGroups<L, 2 * kStep>(sums, column, p),
                     MeetGroups<L, 2 * kStep>(sums, column, p + kStep));
  }
}

// The columns [start, start + kColumns) of batch element b.
template <typename W, typename L>
__device__ void SumStrip(const Problem<W>& problem, int64_t b, int64_t start) {
  __shared__ Term terms[kChunk];
  __shared__ float sums[L::kGroups][L::kColumns];
  const int group = threadIdx.x / L::kGroupThreads;
  const int thread = threadIdx.x % L::kGroupThreads;
  const int64_t column = start + L::Column(thread, 0);
  const W* strip = problem.weights + problem.weights_at(b) + column;
  const int32_t* rows = problem.rows + problem.rows_at(b);
  const float* values = problem.values + problem.values_at(b);
  const uint32_t count = ClampCount(problem.counts[problem.counts_at(b)], problem.capacity);

  ThreadSums<W, L> mine;
  for (uint32_t first = 0; first < count; first += kChunk) {
    constexpr uint32_t kRound = L::kGroups * kInFlight;
    const uint32_t left = count - first;
    const uint32_t size = left < kChunk ? (left + kRound - 1) / kRound * kRound : kChunk;
    __syncthreads();  // the chunk before has been read
    StageTerms(rows, values, first, size, count, problem.num_pre, terms);
    __syncthreads();
    mine.Add(terms + group, size / L::kGroups, strip, problem.num_post,
             problem.num_post - column);
  }
  mine.MeetInThread();
#pragma unroll
  for (int v = 0; v < L::kWidth; ++v) sums[group][L::Column(thread, v)] = mine.sums[0][v];
  __syncthreads();
  for (int c = threadIdx.x; c < L::kColumns && start + c < problem.num_post; c += kThreads) {
    problem.received[b * problem.num_post + start + c] = MeetGroups<L>(sums, c);
  }
}

template <typename W, typename L>
__global__ void __launch_bounds__(kThreads, L::kMinBlocks)
    AccumulateKernel(const __grid_constant__ Problem<W> problem) {
  const int64_t strips = CeilDiv(problem.num_post, L::kColumns);
  for (int64_t item = blockIdx.x; item < strips * problem.batch; item += gridDim.x) {
    // A shared matrix: neighbouring blocks read the same columns, so that the cache serves rows
    // that several active sets list.
    const int64_t b = problem.weights_shared ? item % problem.batch : item / strips;
    const int64_t strip = problem.weights_shared ? item / problem.batch : item % strips;
    SumStrip<W, L>(problem, b, strip * L::kColumns);
    __syncthreads();  // shared memory is free again
  }
}

template <typename W, typename L>
ffi::Error Launch(cudaStream_t stream, const Problem<W>& problem) {
  const int64_t items = CeilDiv(problem.num_post, L::kColumns) * problem.batch;
  const int blocks = static_cast<int>(items < kMaxGridX ? items : kMaxGridX);
  AccumulateKernel<W, L><<<blocks, kThreads, 0, stream>>>(problem);
  return StatusOf("accumulate_rows", cudaGetLastError());
}

// Wide strips where they give every multiprocessor work; else narrow ones, one thread a lane.
template <typename W, bool kAligned>
ffi::Error ChooseLayout(cudaStream_t stream, const Problem<W>& problem) {
  using Wide = Layout<W, 8, kAligned>;
  using Narrow = Layout<W, 32, kAligned>;
  const int64_t wide_blocks = CeilDiv(problem.num_post, Wide::kColumns) * problem.batch;
  return wide_blocks >= kEnoughBlocks ? Launch<W, Wide>(stream, problem)
                                      : Launch<W, Narrow>(stream, problem);
}

template <typename W>
ffi::Error AccumulateRows(cudaStream_t stream, const Problem<W>& problem) {
  if (problem.batch == 0 || problem.num_post == 0) return ffi::Error::Success();
  const uintptr_t misaligned =
      reinterpret_cast<uintptr_t>(problem.weights) | (problem.num_post * sizeof(W));
  return misaligned % 16 == 0 ? ChooseLayout<W, true>(stream, problem)
                              : ChooseLayout<W, false>(stream, problem);
}

ffi::Error Handler(cudaStream_t stream, ffi::AnyBuffer weights, ffi::Buffer<ffi::S32> rows,
                   ffi::Buffer<ffi::F32> values, ffi::Buffer<ffi::S32> counts,
                   ffi::ResultBuffer<ffi::F32> received) {
  BatchOffsets weights_at, rows_at, values_at, counts_at;
  const Dimensions result = received->dimensions();
  if (!MapBatch(weights.dimensions(), 2, result, 1, &weights_at) ||
      !MapBatch(rows.dimensions(), 1, result, 1, &rows_at) ||
      !MapBatch(values.dimensions(), 1, result, 1, &values_at) ||
      !MapBatch(counts.dimensions(), 0, result, 1, &counts_at)) {
    return ffi::Error::InvalidArgument("accumulate_rows: batch dimensions do not fit");
  }
  const int64_t capacity = rows.dimensions().back();
  const int64_t num_post = weights.dimensions().back();
  const int64_t num_pre = weights.dimensions()[weights.dimensions().size() - 2];
  if (values.dimensions().back() != capacity) {
    return ffi::Error::InvalidArgument("accumulate_rows: indices and values differ in length");
  }
  if (result.back() != num_post) {
    return ffi::Error::InvalidArgument("accumulate_rows: result must have one entry per column");
  }
  const bool weights_shared = BatchSize(weights.dimensions(), 2) == 1;
  auto run = [&](const auto* typed_weights) {
    return AccumulateRows(
        stream, Problem<std::remove_const_t<std::remove_pointer_t<decltype(typed_weights)>>>{
                    typed_weights, rows.typed_data(), values.typed_data(), counts.typed_data(),
                    received->typed_data(), weights_at, rows_at, values_at, counts_at,
                    BatchSize(result, 1), capacity, num_pre, num_post, weights_shared});
  };
  switch (weights.element_type()) {
    case ffi::F32: return run(static_cast<const float*>(weights.untyped_data()));
    case ffi::BF16: return run(static_cast<const uint16_t*>(weights.untyped_data()));
    default: return ffi::Error::InvalidArgument("accumulate_rows: weights must be F32 or BF16");
  }
}

}  // namespace
}  // namespace brainjax

XLA_FFI_DEFINE_HANDLER_SYMBOL(BrainjaxAccumulateRows, brainjax::Handler,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>()
                                  .Arg<xla::ffi::AnyBuffer>()                  // weights
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()      // indices
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()      // values
                                  .Arg<xla::ffi::Buffer<xla::ffi::S32>>()      // count
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>(),     // received
                              {xla::ffi::Traits::kCmdBufferCompatible});
