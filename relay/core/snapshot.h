// SPDX-License-Identifier: Apache-2.0
// PostgreSQL's pg_snapshot: which transactions were finished at one moment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace relay {

using Xid = std::uint64_t;  // xid8: never reused within the life of a cluster

// Half-open range of transaction ids.
struct XidRange {
  Xid from;
  Xid to;
  friend bool operator==(const XidRange&, const XidRange&) = default;
};

// A snapshot as the server printed it. The relay never makes one up: only real ones keep the order
// of a key.
class Snapshot {
 public:
  // Parses "xmin:xmax:xip,xip,…"; nullopt for anything else.
  static std::optional<Snapshot> parse(std::string_view text);

  // The base of a new relay: no transaction of an application is finished in it.
  static Snapshot nothing() { return *parse("3:3:"); }

  Xid xmin() const { return xmin_; }
  Xid xmax() const { return xmax_; }
  const std::vector<Xid>& running() const { return running_; }  // ascending, all in [xmin, xmax)
  const std::string& text() const { return text_; }

  // Whether the transaction was finished (committed or aborted) when the snapshot was taken.
  bool finished(Xid xid) const;

  friend bool operator==(const Snapshot& a, const Snapshot& b) { return a.text_ == b.text_; }

 private:
  std::string text_;
  Xid xmin_ = 0;
  Xid xmax_ = 0;
  std::vector<Xid> running_;
};

// What became visible between two snapshots of one server, in the form in which the reader looks
// for it.
struct Difference {
  std::vector<Xid> late;        // running in `base`, finished in `upto`
  std::vector<XidRange> fresh;  // begun since `base`, finished in `upto`

  static Difference between(const Snapshot& base, const Snapshot& upto);
  bool empty() const { return late.empty() && fresh.empty(); }
};

}  // namespace relay
