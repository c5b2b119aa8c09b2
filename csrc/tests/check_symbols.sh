#!/bin/sh
# Fails if an object exports anything but one kernel table: above all weak symbols, of which the
# linker keeps any copy for the whole program.
set -eu
for object in "$@"; do
  exported=$("${NM:-nm}" --demangle --defined-only --extern-only "$object" | cut -d ' ' -f 2-)
  echo "$exported"
  test "$(echo "$exported" | grep -c .)" = 1
  echo "$exported" | grep -Eq '^[DR] vqtok::[a-z]+_kernel_[a-z0-9]+$'
done
