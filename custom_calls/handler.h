// How a function of an operation's operands becomes a handler of XLA.
//
// <op>.h states the operands once: a struct of them in the order of <op>.py, and in Bind() their
// types as XLA wants them. A platform appends its context, a stream or a pool of threads.
#ifndef BRAINJAX_HANDLER_H_
#define BRAINJAX_HANDLER_H_

#include <cstddef>
#include <tuple>
#include <utility>

#include "batch.h"

namespace brainjax {

template <typename Operands, typename Passed, size_t... kPlaces>
Operands Collect(const Passed& passed, std::index_sequence<kPlaces...>) {
  return {std::get<kPlaces>(passed)...};
}

// What XLA calls: `run` as a function of each operand, and of the context behind them.
template <typename Context, typename Operands>
auto Unpacked(ffi::Error (*run)(Context, Operands)) {
  return [run](auto... passed) {
    constexpr size_t kOperands = sizeof...(passed) - 1;
    const std::tuple all(passed...);
    return run(std::get<kOperands>(all),
               Collect<Operands>(all, std::make_index_sequence<kOperands>{}));
  };
}

}  // namespace brainjax

#endif  // BRAINJAX_HANDLER_H_
