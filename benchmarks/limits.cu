// What a GPU allows, whatever the kernel: figures that benchmarks/README.md holds ours against.
//
// Run:  nvcc -std=c++17 -O3 -arch=native benchmarks/limits.cu -o limits && ./limits
//
// Each row is the median time of one unit of work, many of which stand in a CUDA graph. The weights
// of the brains take 17 GB.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

namespace {

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
T* OnDevice(const std::vector<T>& values) {
  T* copy;
  Check(cudaMalloc(&copy, values.size() * sizeof(T)));
  Check(cudaMemcpy(copy, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return copy;
}

template <typename T>
T* Zeros(size_t size) {
  T* zeros;
  Check(cudaMalloc(&zeros, size * sizeof(T)));
  Check(cudaMemset(zeros, 0, size * sizeof(T)));
  return zeros;
}

// Microseconds of one of the units that record(stream) starts.
template <typename Record>
double Time(int units, const Record& record) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t runnable;
  cudaEvent_t start, end;
  Check(cudaStreamCreate(&stream));
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  record(stream);
  Check(cudaStreamEndCapture(stream, &graph));
  Check(cudaGraphInstantiate(&runnable, graph, 0));
  Check(cudaEventCreate(&start));
  Check(cudaEventCreate(&end));
  std::vector<float> times(15);
  for (float& milliseconds : times) {
    Check(cudaEventRecord(start, stream));
    Check(cudaGraphLaunch(runnable, stream));
    Check(cudaEventRecord(end, stream));
    Check(cudaEventSynchronize(end));
    Check(cudaEventElapsedTime(&milliseconds, start, end));
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return 1e3 * times[times.size() / 2] / units;
}

struct Launch {
  unsigned blocks, threads;
};

// With `attribute`, 0 for none: that the kernel overlaps with the one in front, or needs its blocks
// to run together.
template <typename... Args>
void Start(cudaStream_t stream, Launch launch, int attribute, void (*kernel)(Args...),
           Args... args) {
  cudaLaunchAttribute attributes[1];
  attributes[0].id = static_cast<cudaLaunchAttributeID>(attribute);
  if (attribute == cudaLaunchAttributeCooperative) {
    attributes[0].val.cooperative = 1;
  } else {
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config = {launch.blocks, launch.threads, 0, stream, attributes,
                               attribute != 0 ? 1u : 0u};
  Check(cudaLaunchKernelEx(&config, kernel, args...));
}

// --- Kernels that wait for each other ------------------------------------------------------------

constexpr int kOverlaps = cudaLaunchAttributeProgrammaticStreamSerialization;
constexpr int kTogether = cudaLaunchAttributeCooperative;

// A warp of each block follows a random cycle: `steps` reads that wait for each other.
__global__ void Chase(const uint32_t* next, uint32_t size, int steps, uint32_t* sink) {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  if (threadIdx.x >= 32) return;
  uint32_t at = (blockIdx.x * 32 + threadIdx.x) * 61 % size;
  for (int i = 0; i < steps; ++i) at = __ldcg(next + at);
  if (at == size) *sink = at;
}

__global__ void Meet(int barriers) {
  for (int i = 0; i < barriers; ++i) cooperative_groups::this_grid().sync();
}

std::vector<uint32_t> RandomCycle(uint32_t size) {
  std::vector<uint32_t> order(size), next(size);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(0));
  for (uint32_t i = 0; i < size; ++i) next[order[i]] = order[(i + 1) % size];
  return next;
}

void TimeKernelsInTurn(int multiprocessors) {
  constexpr uint32_t kSize = 1 << 20;  // 4 MB, in the second-level cache
  const uint32_t* const next = OnDevice(RandomCycle(kSize));
  uint32_t* const sink = Zeros<uint32_t>(1);
  // The four kernels of a burst, as 100,000 neurons would take them.
  const Launch burst[] = {{264, 512}, {264, 512}, {391, 256}, {7, 512}};
  for (int steps : {0, 1, 2, 3, 4}) {
    for (int attribute : {0, kOverlaps}) {
      constexpr int kBursts = 32;
      const double us = Time(kBursts, [&](cudaStream_t stream) {
        for (int i = 0; i < kBursts; ++i) {
          for (const Launch& launch : burst) {
            const bool is_first = &launch == burst;
            Start(stream, launch, is_first ? 0 : attribute, Chase, next, kSize, steps, sink);
          }
        }
      });
      std::printf("four kernels, %d dependent reads in each, %-13s %7.2f us\n", steps,
                  attribute == 0 ? "in turn" : "overlapping", us);
    }
  }
  const auto meet = [&](int barriers) {
    const Launch launch{static_cast<unsigned>(multiprocessors), 512};
    return Time(32, [&](cudaStream_t stream) {
      for (int i = 0; i < 32; ++i) Start(stream, launch, kTogether, Meet, barriers);
    });
  };
  std::printf("a barrier of the grid %36.2f us\n", (meet(11) - meet(1)) / 10);
}

// --- Atomic additions alone ----------------------------------------------------------------------

constexpr int kInFlight = 4;

__global__ void __launch_bounds__(512, 2)
    AddAll(const int32_t* targets, const float* weights, int64_t size,
           unsigned long long* tallies) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += kInFlight * stride) {
    int32_t target[kInFlight];
    float weight[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int64_t j = i + u * stride;
      target[u] = j < size ? __ldg(targets + j) : -1;
      weight[u] = j < size ? __ldg(weights + j) : 0.0f;
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (target[u] < 0) continue;
      const uint32_t sum = static_cast<uint32_t>(__float2int_rn(weight[u] * 1048576.0f));
      atomicAdd(tallies + target[u], (1ull << 32) + sum);
    }
  }
}

__global__ void Clear(int4* words, int64_t size) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride) {
    words[i] = make_int4(0, 0, 0, 0);
  }
}

// As many synapses as neurons, other ones each time.
void TimeAtomics(int64_t neurons, unsigned blocks) {
  constexpr int kSets = 16;
  std::mt19937 random(1);
  std::vector<int32_t> targets(kSets * neurons);
  for (int32_t& target : targets) target = static_cast<int32_t>(random() % neurons);
  const int32_t* const all = OnDevice(targets);
  const float* const weights = OnDevice(std::vector<float>(targets.size(), 0.5f));
  unsigned long long* const tallies = Zeros<unsigned long long>(neurons);
  const double adding = Time(kSets, [&](cudaStream_t stream) {
    for (int i = 0; i < kSets; ++i) {
      AddAll<<<blocks, 512, 0, stream>>>(all + i * neurons, weights + i * neurons, neurons,
                                         tallies);
    }
  });
  const double clearing = Time(kSets, [&](cudaStream_t stream) {
    for (int i = 0; i < kSets; ++i) {
      Clear<<<blocks, 512, 0, stream>>>(reinterpret_cast<int4*>(tallies), neurons / 2);
    }
  });
  std::printf("%8lld synapses added to as many tallies %17.2f us, tallies cleared %.2f\n",
              static_cast<long long>(neurons), adding, clearing);
}

// --- A round of many brains without the choice ---------------------------------------------------

constexpr int kBrains = 256, kNeurons = 4096, kWinners = 64, kLearners = 256;

// A block reads a strip of the rows of those that sent and, with kLearns, writes their synapses
// onto given winners.
template <int kStrips, bool kLearns>
__global__ void __launch_bounds__(kLearners)
    ReadAndLearn(float* weights, const int32_t* senders, const int32_t* winners, float4* sums) {
  constexpr int kWidth = kNeurons / kStrips, kVectors = kWidth / 4;
  constexpr int kGroups = kLearners / kVectors;  // of threads, which share the rows
  const int brain = blockIdx.x / kStrips, strip = blockIdx.x % kStrips;
  const int vector = threadIdx.x % kVectors, group = threadIdx.x / kVectors;
  __shared__ int32_t rows[kWinners], columns[kWinners];
  __shared__ int num_columns;
  if (threadIdx.x == 0) num_columns = 0;
  __syncthreads();
  if (threadIdx.x < kWinners) {
    rows[threadIdx.x] = senders[brain * kWinners + threadIdx.x];
    const int32_t column = winners[brain * kWinners + threadIdx.x];
    if (column / kWidth == strip) columns[atomicAdd(&num_columns, 1)] = column;
  }
  __syncthreads();
  float* const own = weights + int64_t{brain} * kNeurons * kNeurons;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = group; i < kWinners; i += kGroups) {
    const float* const strip_of_row = own + int64_t{rows[i]} * kNeurons + strip * kWidth;
    const float4 four = __ldcg(reinterpret_cast<const float4*>(strip_of_row) + vector);
    sum.x += four.x, sum.y += four.y, sum.z += four.z, sum.w += four.w;
  }
  // What the other groups read never has this sum, but that the compiler does not know.
  if (group == 0 || sum.x == -1.0f) sums[int64_t{blockIdx.x} * kVectors + vector] = sum;
  if constexpr (kLearns) {
    for (int i = threadIdx.x; i < num_columns * kWinners; i += kLearners) {
      own[int64_t{rows[i / num_columns]} * kNeurons + columns[i % num_columns]] = 1.0f;
    }
  }
}

std::vector<int32_t> DrawNeurons(int lists) {
  std::mt19937 random(2);
  std::vector<int32_t> all(kNeurons), drawn;
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < lists; ++i) {
    std::shuffle(all.begin(), all.end(), random);
    std::sort(all.begin(), all.begin() + kWinners);
    drawn.insert(drawn.end(), all.begin(), all.begin() + kWinners);
  }
  return drawn;
}

void TimeManyBrains() {
  constexpr int kRounds = 8;
  float* const weights = Zeros<float>(size_t{kBrains} * kNeurons * kNeurons);
  float4* const sums = Zeros<float4>(kBrains * kNeurons / 4);
  const int32_t* const senders = OnDevice(DrawNeurons(kRounds * kBrains));
  const int32_t* const winners = OnDevice(DrawNeurons(kRounds * kBrains));
  const auto time = [&](int strips, auto kernel) {
    return Time(kRounds, [&](cudaStream_t stream) {
      for (int r = 0; r < kRounds; ++r) {
        const int from = r * kBrains * kWinners;
        kernel<<<kBrains * strips, kLearners, 0, stream>>>(weights, senders + from,
                                                           winners + from, sums);
      }
    });
  };
  const auto report = [&](int strips, auto reads, auto learns) {
    std::printf("256 brains of 4,096 in %2d strips: 64 rows read %10.1f us, learnt as well %.1f\n",
                strips, time(strips, reads), time(strips, learns));
  };
  report(4, ReadAndLearn<4, false>, ReadAndLearn<4, true>);
  report(8, ReadAndLearn<8, false>, ReadAndLearn<8, true>);
  report(16, ReadAndLearn<16, false>, ReadAndLearn<16, true>);
}

}  // namespace

int main() {
  cudaDeviceProp device;
  Check(cudaGetDeviceProperties(&device, 0));
  std::printf("%s, %d multiprocessors\n", device.name, device.multiProcessorCount);
  const unsigned blocks = 2 * device.multiProcessorCount;
  TimeKernelsInTurn(device.multiProcessorCount);
  for (int64_t neurons : {100'000, 1'000'000}) TimeAtomics(neurons, blocks);
  TimeManyBrains();
}
