# SPDX-License-Identifier: Apache-2.0
# Turns sql/SCHEMA/NNN_*.sql into one generated source, so that the binary carries its own migrations.
file(GLOB SQL_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/sql/*/[0-9]*.sql)
list(SORT SQL_FILES)
set(EMBEDDED_SQL ${PROJECT_BINARY_DIR}/generated/embedded_sql.cpp)
add_custom_command(
  OUTPUT ${EMBEDDED_SQL}
  COMMAND ${CMAKE_COMMAND} "-DFILES=${SQL_FILES}" -DOUT=${EMBEDDED_SQL} -P ${PROJECT_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
  DEPENDS ${SQL_FILES} ${PROJECT_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
  VERBATIM)
