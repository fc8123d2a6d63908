// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <librdkafka/rdkafka.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace relay::kafka {

// Counts the requests of one client that can change a transaction, sent against answered.
//
// A request that was sent and never answered may still act, late, on a later transaction of the
// same producer epoch; the API says OK throughout. Request interceptors are the only exact signal
// (see "Late requests" in docs/protocol.md). Must outlive the client whose configuration it was
// attached to. Written by librdkafka's broker threads.
class InFlightRequests {
 public:
  // Begins to count the requests of the client that will be made of `conf`, from nothing: what an
  // older client left unanswered is of an older epoch. REQUIRES: every client that was counted
  // before is destroyed.
  void attach(rd_kafka_conf_t* conf);
  // Whether every request that was sent has been answered. Exact when commit_transaction() has
  // returned.
  bool none() const;

 private:
  static constexpr std::array<std::int16_t, 5> counted = {
      0, 24, 25, 26, 28};  // Produce, AddPartitions, AddOffsets, EndTxn, TxnOffsetCommit

  static rd_kafka_resp_err_t on_new(rd_kafka_t* rk, const rd_kafka_conf_t* conf, void* self,
                                    char* why, std::size_t size);
  static rd_kafka_resp_err_t on_thread_start(rd_kafka_t* rk, rd_kafka_thread_type_t type,
                                             const char* name, void* self);
  static rd_kafka_resp_err_t on_sent(rd_kafka_t* rk, int socket, const char* broker,
                                     std::int32_t broker_id, std::int16_t key, std::int16_t version,
                                     std::int32_t id, std::size_t size, void* self);
  static rd_kafka_resp_err_t on_answer(rd_kafka_t* rk, int socket, const char* broker,
                                       std::int32_t broker_id, std::int16_t key,
                                       std::int16_t version, std::int32_t id, std::size_t size,
                                       std::int64_t rtt, rd_kafka_resp_err_t err, void* self);
  void count(std::array<std::atomic<std::uint64_t>, counted.size()>& where, std::int16_t key);

  std::array<std::atomic<std::uint64_t>, counted.size()> sent_{};
  std::array<std::atomic<std::uint64_t>, counted.size()> answered_{};
};

}  // namespace relay::kafka
