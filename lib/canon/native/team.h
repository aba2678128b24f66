// Work in phases, shared between the calling thread and the threads of XLA's pool that are free.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace canon {

// Every phase has the same blocks, and starts when the blocks of the phase before it are done. A thread begins with
// blocks of its own, the same in every phase, so that what they read stays in its cache; then it takes what others
// have not begun. A helper that the pool never starts is not waited for, so a busy pool cannot block.
template <typename Body>
class Phases {
 public:
  Phases(int64_t phases, int64_t blocks, int64_t threads, Body body)
      : phases_(phases), blocks_(blocks), threads_(threads), body_(body), next_phase_(blocks) {}

  void Work(int64_t thread) {
    const int64_t first = thread * blocks_ / threads_;
    for (int64_t phase = done_.load(std::memory_order_acquire) / blocks_; phase < phases_; ++phase) {
      for (int64_t i = 0; i < blocks_; ++i) {
        const int64_t block = (first + i) % blocks_;
        int64_t expected = phase;
        if (next_phase_[block].compare_exchange_strong(expected, phase + 1, std::memory_order_acq_rel)) {
          body_(phase, block);
          done_.fetch_add(1, std::memory_order_acq_rel);
        }
      }
      Wait((phase + 1) * blocks_);
    }
  }

 private:
  void Wait(int64_t done) {
    for (int spins = 0; done_.load(std::memory_order_acquire) < done; ++spins) {
      if (spins > 2000) std::this_thread::yield();  // another program may need the core that we wait for
    }
  }

  const int64_t phases_, blocks_, threads_;
  Body body_;
  std::vector<std::atomic<int64_t>> next_phase_;  // of each block
  std::atomic<int64_t> done_{0};
};

// Calls body(phase, block) for all blocks of all phases, in order of the phases. What `body` refers to must outlive
// the call only: helpers that start later find nothing left, and do not touch it.
template <typename Body>
void RunPhases(xla::ffi::ThreadPool pool, int64_t phases, int64_t blocks, Body body) {
  if (!phases || !blocks) return;
  const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(pool.num_threads(), blocks));
  auto shared = std::make_shared<Phases<Body>>(phases, blocks, threads, body);
  for (int64_t i = 1; i < threads; ++i) pool.Schedule([shared, i] { shared->Work(i); });
  shared->Work(0);
}

}  // namespace canon
