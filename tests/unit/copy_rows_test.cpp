// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/copy_rows.h"

#include <gtest/gtest.h>

namespace relay::postgres {
namespace {

using Field = std::optional<std::string>;

std::string big_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
  return out;
}

std::string row_of(const std::vector<Field>& fields) {
  std::string row = big_endian(fields.size(), 2);
  for (const Field& f : fields) {
    row += big_endian(f ? f->size() : 0xffffffff, 4);
    row += f.value_or("");
  }
  return row;
}

std::vector<Field> good() {
  return {big_endian(7, 8), std::string(16, '\x11'), "topic", "key", "payload",
          std::nullopt,     "\x01{\"a\": \"b\"}",    "dedup"};
}

const std::string header = std::string("PGCOPY\n\377\r\n\0", 11) + std::string(8, '\0');

TEST(CopyRowsTest, ARowIsDecodedWhereItLies) {
  const std::string row = row_of(good());
  Page page;
  const auto m = decode_row(row, page);
  ASSERT_TRUE(m && *m);
  EXPECT_EQ((*m)->seq, 7);
  EXPECT_EQ((*m)->id.bytes[15], 0x11);
  EXPECT_EQ((*m)->topic, "topic");
  EXPECT_EQ((*m)->key, "key");
  EXPECT_EQ((*m)->payload, "payload");
  EXPECT_EQ((*m)->payload_bytes, 7);
  EXPECT_EQ((*m)->dedup_key, "dedup");
  EXPECT_FALSE((*m)->oversize);
  ASSERT_EQ(page.headers.size(), 1U);
  EXPECT_GE((*m)->payload->data(), row.data());
  EXPECT_LT((*m)->payload->data(), row.data() + row.size());
}

TEST(CopyRowsTest, TheHeaderOfTheCopyMayComeBeforeTheFirstRow) {
  Page page;
  const std::string row = header + row_of(good());
  const auto m = decode_row(row, page);
  ASSERT_TRUE(m && *m);
  EXPECT_EQ((*m)->seq, 7);
}

TEST(CopyRowsTest, TheTrailerAndABareHeaderAreNoRows) {
  Page page;
  for (const std::string& data : {big_endian(0xffff, 2), header, header + big_endian(0xffff, 2)}) {
    const auto m = decode_row(data, page);
    ASSERT_TRUE(m);
    EXPECT_FALSE(*m);
  }
}

TEST(CopyRowsTest, NullsStayNull) {
  auto fields = good();
  fields[3] = fields[4] = fields[6] = fields[7] = std::nullopt;
  const std::string row = row_of(fields);
  Page page;
  const auto m = decode_row(row, page);
  ASSERT_TRUE(m && *m);
  EXPECT_FALSE((*m)->key);
  EXPECT_FALSE((*m)->payload);
  EXPECT_FALSE((*m)->dedup_key);
  EXPECT_EQ((*m)->payload_bytes, 0);
}

TEST(CopyRowsTest, AnOversizePayloadStaysOnTheServer) {
  auto fields = good();
  fields[4] = std::nullopt;
  fields[5] = big_endian(5'000'000, 4);
  const std::string row = row_of(fields);
  Page page;
  const auto m = decode_row(row, page);
  ASSERT_TRUE(m && *m);
  EXPECT_TRUE((*m)->oversize);
  EXPECT_EQ((*m)->payload_bytes, 5'000'000);
}

TEST(CopyRowsTest, BytesThatNoServerSendsAreRefused) {
  const std::string row = row_of(good());
  auto short_seq = good();
  short_seq[0] = "abc";
  auto no_topic = good();
  no_topic[2] = std::nullopt;
  auto headers_version = good();
  headers_version[6] = "\x02{}";
  auto columns = good();
  columns.pop_back();
  std::vector<std::string> bad = {"",
                                  "\0",
                                  header.substr(0, 15),
                                  row_of(short_seq),
                                  row_of(no_topic),
                                  row_of(headers_version),
                                  row_of(columns)};
  for (std::size_t cut = 2; cut < row.size(); cut += 3) bad.push_back(row.substr(0, cut));
  for (const std::string& data : bad) {
    Page page;
    const auto m = decode_row(data, page);
    ASSERT_FALSE(m) << data.size();
    EXPECT_EQ(m.error().fault, Fault::refused);
  }
}

}  // namespace
}  // namespace relay::postgres
