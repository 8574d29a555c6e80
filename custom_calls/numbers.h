// Number formats: bfloat16 weights, and floats as sortable integers.
#ifndef BRAINJAX_NUMBERS_H_
#define BRAINJAX_NUMBERS_H_

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define BRAINJAX_NUMBER_FUNCTION __host__ __device__ __forceinline__
#else
#define BRAINJAX_NUMBER_FUNCTION inline
#endif

namespace brainjax {

BRAINJAX_NUMBER_FUNCTION uint32_t Bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

BRAINJAX_NUMBER_FUNCTION float FromBits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

BRAINJAX_NUMBER_FUNCTION float ToFloat(float w) { return w; }

// A bfloat16 is the upper half of a float.
BRAINJAX_NUMBER_FUNCTION float ToFloat(uint16_t w) {
  return FromBits(static_cast<uint32_t>(w) << 16);
}

BRAINJAX_NUMBER_FUNCTION void Round(float x, float* w) { *w = x; }

// To the nearest bfloat16, ties to even; NaN stays NaN.
BRAINJAX_NUMBER_FUNCTION void Round(float x, uint16_t* w) {
  const uint32_t bits = Bits(x);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  *w = static_cast<uint16_t>((is_nan ? bits | 0x00400000u : rounded) >> 16);
}

// Unsigned integers in the order of lax.top_k: -NaN < -inf < ... < -0 < +0 < ... < inf < NaN.
BRAINJAX_NUMBER_FUNCTION uint32_t Key(float score) {
  const uint32_t bits = Bits(score);
  const uint32_t sign = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31);
  return bits ^ (sign | 0x80000000u);
}

// A bfloat16 that is not to be taken for an integer.
struct BFloat16 {
  uint16_t bits;
};

BRAINJAX_NUMBER_FUNCTION uint32_t Key(BFloat16 score) { return Key(ToFloat(score.bits)); }
BRAINJAX_NUMBER_FUNCTION uint32_t Key(uint8_t score) { return score; }
BRAINJAX_NUMBER_FUNCTION uint32_t Key(uint16_t score) { return score; }
BRAINJAX_NUMBER_FUNCTION uint32_t Key(int32_t score) {
  return static_cast<uint32_t>(score) ^ 0x80000000u;
}

}  // namespace brainjax

#endif  // BRAINJAX_NUMBERS_H_
