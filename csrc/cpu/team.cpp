#include "cpu/team.h"

#include <pthread.h>

namespace vqtok {
namespace {

bool forked = false;
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

bool in_forked_child() { return forked; }

}  // namespace vqtok
