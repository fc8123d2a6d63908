# SPDX-License-Identifier: Apache-2.0
# How every target of this tree is compiled, and the functions that make one.
find_program(CCACHE ccache)
if(CCACHE AND PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache takes precompiled headers only if it may trust what they were made from.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
endif()

# Linked by each target, and by no installed one's users.
add_library(outbox_flags INTERFACE)
target_compile_features(outbox_flags INTERFACE cxx_std_20)
target_compile_options(outbox_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow
  # GCC 12 reports string concatenation (bug 105651) and empty std::optional falsely; with precompiled headers it does
  # so also where the fault would be the standard library's.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-maybe-uninitialized;-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>
  -fstack-protector-strong -fstack-clash-protection $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
target_compile_definitions(outbox_flags INTERFACE _GLIBCXX_ASSERTIONS)
if(OUTBOX_SANITIZE)
  # Undefined behavior ends the program: what is only printed fails no test.
  set(sanitizers -fsanitize=${OUTBOX_SANITIZE} -fno-sanitize-recover=all)
  target_compile_options(outbox_flags INTERFACE ${sanitizers} -fno-omit-frame-pointer)
  target_link_options(outbox_flags INTERFACE ${sanitizers})
else()
  target_compile_definitions(outbox_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
endif()
target_link_options(outbox_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed)

# outbox_use_flags(TARGET [PCH TARGET]): the flags and the language; with PCH, the precompiled headers of that target,
# which must be compiled with the same options.
function(outbox_use_flags target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "PCH" "")
  set_target_properties(${target} PROPERTIES CXX_STANDARD 20 CXX_EXTENSIONS OFF)
  target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:outbox_flags>)
  if(ARG_PCH)
    target_precompile_headers(${target} REUSE_FROM ${ARG_PCH})
  endif()
endfunction()

# outbox_show(TARGET VISIBILITY FOLDER...): lets TARGET, and what links it if VISIBILITY is PUBLIC or INTERFACE, include
# the headers of FOLDER by their path from the top, and of no other folder. So a layer can include what it links, and
# the compiler refuses the rest.
function(outbox_show target visibility)
  foreach(folder IN LISTS ARGN)
    set(root ${PROJECT_BINARY_DIR}/include/${folder})
    cmake_path(GET folder PARENT_PATH parent)
    file(MAKE_DIRECTORY ${root}/${parent})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${root}/${folder} SYMBOLIC)
    target_include_directories(${target} ${visibility} $<BUILD_INTERFACE:${root}>)
  endforeach()
endfunction()
