// SPDX-License-Identifier: Apache-2.0
#include "relay/commands/commands.h"

int main(int argc, char** argv) { return relay::main_command(argc, argv); }
