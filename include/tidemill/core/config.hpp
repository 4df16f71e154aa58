// Macros of the build: symbol visibility, forced inlining of fused loops, and the version. Nothing else.
#pragma once

#define TIDEMILL_VERSION_MAJOR 0
#define TIDEMILL_VERSION_MINOR 1
#define TIDEMILL_VERSION_PATCH 0

// Everything is hidden in the shared library but what carries TIDEMILL_API. Exceptions and classes with virtual
// functions carry it too, so that `catch` and `dynamic_cast` work across the library's border.
#if defined(_WIN32)
#error "Tidemill supports POSIX systems only"
#elif defined(__GNUC__)
#define TIDEMILL_API __attribute__((visibility("default")))
#else
#define TIDEMILL_API
#endif

// One loop per partition (docs/architecture.md, "fusion") needs every stage inlined; the heuristics of the compiler give
// up after a few nested lambdas.
#if defined(__GNUC__)
#define TIDEMILL_INLINE inline __attribute__((always_inline))
#define TIDEMILL_INLINE_LAMBDA __attribute__((always_inline))
#define TIDEMILL_NOINLINE __attribute__((noinline))
#else
#define TIDEMILL_INLINE inline
#define TIDEMILL_INLINE_LAMBDA
#define TIDEMILL_NOINLINE
#endif

// Reading a few bytes past a view, inside its memory page, is harmless to the hardware and visible to sanitizers.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TIDEMILL_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TIDEMILL_SANITIZED 1
#endif
#endif
#ifndef TIDEMILL_SANITIZED
#define TIDEMILL_SANITIZED 0
#endif
