// SPDX-License-Identifier: Apache-2.0
// Compares what a reader gives with the definition of a difference, asked of PostgreSQL itself.
#pragma once

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/support/reader_fixture.h"

namespace relay::test {

// The rows of each difference must be those visible in upto and not in base, by seq; what lies
// between two differences, where the reader went on without a page, must be nothing; each row
// belongs to one difference.
class Differences {
 public:
  explicit Differences(const std::string& dsn) : connection_(dsn) {}

  // The difference by its definition.
  static std::vector<std::int64_t> defined(const std::string& dsn, const Snapshot& base,
                                           const Snapshot& upto) {
    return Differences(dsn).defined(base, upto);
  }

  // The next page that the reader gave.
  void page(const Page& p) {
    if (p.bounds.after_seq == 0) begin(p);
    EXPECT_EQ(p.bounds.base, base_);
    EXPECT_EQ(p.bounds.upto, upto_);
    for (const Message& m : p.messages) found_.push_back(m.seq);
    ++pages_;
    (p.bounds.fresh_from ? pages_along_seq_ : pages_by_txid_) += 1;
    if (p.bounds.exhausted) end();
  }
  // The reader found nothing new. A difference that a page seemed to cut ends here as well.
  void nothing() {
    if (open_) end();
  }

  std::size_t rows() const { return seen_.size(); }
  int count() const { return count_; }
  int pages() const { return pages_; }
  int with_late_rows() const { return with_late_rows_; }
  int pages_by_txid() const { return pages_by_txid_; }
  int pages_along_seq() const { return pages_along_seq_; }

 private:
  using Seqs = std::vector<std::int64_t>;

  void begin(const Page& p) {
    EXPECT_FALSE(open_) << "a difference was left unfinished";
    EXPECT_EQ(defined(upto_, p.bounds.base), Seqs{}) << "rows between the differences";
    base_ = p.bounds.base;
    upto_ = p.bounds.upto;
    open_ = true;
    found_.clear();
  }
  void end() {
    EXPECT_EQ(found_, defined(base_, upto_)) << "from " << base_.text() << " to " << upto_.text();
    for (const auto seq : found_) EXPECT_TRUE(seen_.insert(seq).second) << seq << " was read twice";
    ++count_;
    if (!Difference::between(base_, upto_).late.empty()) ++with_late_rows_;
    open_ = false;
  }
  Seqs defined(const Snapshot& base, const Snapshot& upto) {
    pqxx::nontransaction tx(connection_);
    Seqs seqs;
    for (const auto& row :
         tx.exec("select m.seq from outbox.message m where pg_visible_in_snapshot(m.txid, '" +
                 upto.text() + "') and not pg_visible_in_snapshot(m.txid, '" + base.text() +
                 "') order by m.seq")) {
      seqs.push_back(row[0].as<std::int64_t>());
    }
    return seqs;
  }

  pqxx::connection connection_;
  Snapshot base_;
  Snapshot upto_ = Snapshot::nothing();
  bool open_ = false;
  Seqs found_;
  std::set<std::int64_t> seen_;
  int count_ = 0, pages_ = 0, with_late_rows_ = 0, pages_by_txid_ = 0, pages_along_seq_ = 0;
};

}  // namespace relay::test
