// The threads, mutexes and conditions of C11 by those of POSIX. librdkafka uses the former, of which ThreadSanitizer knows
// nothing: it would crash in the first thread that it has not seen begin. Part of the tests under that sanitizer alone; the
// program's definitions come before those of the C library.
#include <cerrno>
#include <ctime>
#include <memory>
#include <pthread.h>
#include <threads.h>

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t) && sizeof(cnd_t) == sizeof(pthread_cond_t));
static_assert(sizeof(once_flag) == sizeof(pthread_once_t) && sizeof(thrd_t) == sizeof(pthread_t));

namespace {

pthread_mutex_t* posix(mtx_t* mutex) { return reinterpret_cast<pthread_mutex_t*>(mutex); }
pthread_cond_t* posix(cnd_t* condition) { return reinterpret_cast<pthread_cond_t*>(condition); }
int c11(int error) {
  switch (error) {
    case 0: return thrd_success;
    case ENOMEM: return thrd_nomem;
    case ETIMEDOUT: return thrd_timedout;
    case EBUSY: return thrd_busy;
    default: return thrd_error;
  }
}

struct Start {
  thrd_start_t function;
  void* argument;
};

}  // namespace

extern "C" {

// What librdkafka makes, frees and copies was handed over by atomic counters and locks of its own, which the sanitizer does not
// see either.
__attribute__((visibility("default"))) const char* __tsan_default_suppressions() {
  return "called_from_lib:librdkafka.so\n"
         "race:mtx_init\nrace:mtx_lock\nrace:mtx_destroy\nrace:cnd_init\nrace:cnd_destroy\n";
}

__attribute__((visibility("default"))) int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  auto start = std::make_unique<Start>(Start{function, argument});
  const int error = pthread_create(
      thread, nullptr,
      [](void* given) -> void* {
        const std::unique_ptr<Start> taken{static_cast<Start*>(given)};
        return reinterpret_cast<void*>(static_cast<long>(taken->function(taken->argument)));
      },
      start.get());
  if (error == 0) static_cast<void>(start.release());
  return c11(error);
}
__attribute__((visibility("default"))) int thrd_join(thrd_t thread, int* result) {
  void* returned = nullptr;
  const int error = pthread_join(thread, &returned);
  if (result != nullptr) *result = static_cast<int>(reinterpret_cast<long>(returned));
  return c11(error);
}
__attribute__((visibility("default"))) thrd_t thrd_current() { return pthread_self(); }
__attribute__((visibility("default"))) void call_once(once_flag* flag, void (*function)()) {
  pthread_once(reinterpret_cast<pthread_once_t*>(flag), function);
}

__attribute__((visibility("default"))) int mtx_init(mtx_t* mutex, int type) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  if ((type & mtx_recursive) != 0) pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
  const int error = pthread_mutex_init(posix(mutex), &kind);
  pthread_mutexattr_destroy(&kind);
  return c11(error);
}
__attribute__((visibility("default"))) int mtx_lock(mtx_t* mutex) { return c11(pthread_mutex_lock(posix(mutex))); }
__attribute__((visibility("default"))) int mtx_trylock(mtx_t* mutex) {
  return c11(pthread_mutex_trylock(posix(mutex)));
}
__attribute__((visibility("default"))) int mtx_unlock(mtx_t* mutex) { return c11(pthread_mutex_unlock(posix(mutex))); }
__attribute__((visibility("default"))) void mtx_destroy(mtx_t* mutex) { pthread_mutex_destroy(posix(mutex)); }

__attribute__((visibility("default"))) int cnd_init(cnd_t* condition) {
  return c11(pthread_cond_init(posix(condition), nullptr));
}
__attribute__((visibility("default"))) int cnd_signal(cnd_t* condition) {
  return c11(pthread_cond_signal(posix(condition)));
}
__attribute__((visibility("default"))) int cnd_broadcast(cnd_t* condition) {
  return c11(pthread_cond_broadcast(posix(condition)));
}
__attribute__((visibility("default"))) int cnd_wait(cnd_t* condition, mtx_t* mutex) {
  return c11(pthread_cond_wait(posix(condition), posix(mutex)));
}
__attribute__((visibility("default"))) int cnd_timedwait(cnd_t* condition, mtx_t* mutex, const std::timespec* until) {
  return c11(pthread_cond_timedwait(posix(condition), posix(mutex), until));
}
__attribute__((visibility("default"))) void cnd_destroy(cnd_t* condition) { pthread_cond_destroy(posix(condition)); }

}  // extern "C"
