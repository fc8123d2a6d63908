// SPDX-License-Identifier: Apache-2.0
// CMake attaches precompiled headers to a target with a source.
