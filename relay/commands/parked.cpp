// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/parked.h"

#include "relay/commands/output.h"

namespace relay {

std::string parked_columns() {
  return "p.parked_for, p.seq, p.id::text, p.topic, coalesce(p.dedup_key, p.id::text), " +
         utc("p.created_at") + ", " + utc("p.parked_at") +
         ", p.error_class, p.error_text, p.released_in, p.resolution, p.decided_by, " +
         utc("p.decided_at") + ", p.decided_why";
}

Json parked_json(const pqxx::row& row) {
  return Json::object({{"id", row[2].c_str()},
                       {"seq", row[1].as<std::int64_t>()},
                       {"topic", row[3].c_str()},
                       {"dedup_key", row[4].c_str()},
                       {"created_at", row[5].c_str()},
                       {"parked_for", row[0].as<std::int64_t>()},
                       {"parked_at", row[6].c_str()},
                       {"error_class", row[7].c_str()},
                       {"error_text", row[8].c_str()},
                       {"released_in", integer_or_null(row[9])},
                       {"resolution", text_or_null(row[10])},
                       {"decided_by", text_or_null(row[11])},
                       {"decided_at", text_or_null(row[12])},
                       {"decided_why", text_or_null(row[13])}});
}

}  // namespace relay
