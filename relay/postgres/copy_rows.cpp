// SPDX-License-Identifier: Apache-2.0
#include "relay/postgres/copy_rows.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "relay/core/headers.h"

namespace relay::postgres {
namespace {

constexpr std::string_view signature("PGCOPY\n\377\r\n\0", 11);
constexpr std::size_t header_size =
    11 + 4 + 4;  // signature, flags, length of the (empty) extension
constexpr std::int16_t column_count = 8;

template <class T>
T big_endian(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  if constexpr (sizeof value == 2)
    return static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
  if constexpr (sizeof value == 4)
    return static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
  if constexpr (sizeof value == 8)
    return static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
}

// Walks over the fields of one row; any read past the end makes it bad for good.
class Fields {
 public:
  explicit Fields(std::string_view row) : rest_(row) {}

  std::optional<std::string_view> text() {
    const auto length = number<std::int32_t>();
    if (length == -1) return std::nullopt;
    if (length < 0 || static_cast<std::size_t>(length) > rest_.size()) {
      bad_ = true;
      return std::nullopt;
    }
    const auto field = rest_.substr(0, static_cast<std::size_t>(length));
    rest_.remove_prefix(field.size());
    return field;
  }
  std::string_view required(std::size_t size) {
    const auto field = text();
    if (!field || field->size() != size) bad_ = true;
    return bad_ ? std::string_view{} : *field;
  }
  template <class T>
  T number() {
    if (rest_.size() < sizeof(T)) {
      bad_ = true;
      return T{};
    }
    const T value = big_endian<T>(rest_.data());
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  bool bad() const { return bad_; }

 private:
  std::string_view rest_;
  bool bad_ = false;
};

Error malformed() {
  return {Fault::refused, "PostgreSQL sent a row in a form that this relay does not know"};
}

}  // namespace

std::string copied_columns(std::int64_t message_bytes_max) {
  const std::string max = std::to_string(message_bytes_max);
  return "m.seq, m.id, m.topic, m.key, case when pg_catalog.octet_length(m.payload) <= " + max +
         " then m.payload end as payload, case when pg_catalog.octet_length(m.payload) > " + max +
         " then pg_catalog.octet_length(m.payload) end as oversize, m.headers, m.dedup_key";
}

Result<std::optional<Message>> decode_row(std::string_view data, Page& page) {
  if (data.starts_with(signature)) {
    if (data.size() < header_size) return malformed();
    data.remove_prefix(header_size);
    if (data.empty()) return std::optional<Message>{};
  }
  Fields fields(data);
  const auto columns = fields.number<std::int16_t>();
  if (columns == -1 && !fields.bad()) return std::optional<Message>{};
  if (columns != column_count) return malformed();

  Message m;
  const auto seq = fields.required(8);
  const auto id = fields.required(16);
  const auto topic = fields.text();
  m.key = fields.text();
  m.payload = fields.text();
  const auto oversize = fields.text();
  const auto headers = fields.text();
  m.dedup_key = fields.text();
  if (fields.bad() || !topic || (oversize && oversize->size() != 4)) return malformed();

  m.seq = big_endian<std::int64_t>(seq.data());
  std::copy(id.begin(), id.end(), m.id.bytes.begin());
  m.topic = *topic;
  m.oversize = oversize.has_value();
  m.payload_bytes = oversize ? big_endian<std::int32_t>(oversize->data())
                             : static_cast<std::int64_t>(m.payload ? m.payload->size() : 0);
  if (headers) {
    if (headers->empty() || headers->front() != 1)
      return malformed();  // the version byte of binary jsonb
    decode_headers(headers->substr(1), m, page);
  }
  return std::optional<Message>(m);
}

}  // namespace relay::postgres
