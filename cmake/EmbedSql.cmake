# SPDX-License-Identifier: Apache-2.0
# Turns the files of sql/ into one generated source, so that the binary carries them. See sql/README.md.
file(GLOB SQL_FILES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/sql/*/*.sql ${PROJECT_SOURCE_DIR}/sql/*/functions/*.sql)
list(SORT SQL_FILES)
set(EMBEDDED_SQL ${PROJECT_BINARY_DIR}/generated/embedded_sql.cpp)
add_custom_command(
  OUTPUT ${EMBEDDED_SQL}
  COMMAND ${CMAKE_COMMAND} -DSQL=${PROJECT_SOURCE_DIR}/sql -DOUT=${EMBEDDED_SQL}
          -P ${PROJECT_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
  DEPENDS ${SQL_FILES} ${PROJECT_SOURCE_DIR}/cmake/EmbedSqlScript.cmake
  VERBATIM)
