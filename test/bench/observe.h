#ifndef BENCH_OBSERVE_H_
#define BENCH_OBSERVE_H_

// Whatever `pointer` leads to may have been looked at, or changed, here: the compiler must have done it by then.
static inline void observe(const void* pointer) { __asm__ volatile("" : : "r"(pointer) : "memory"); }

#endif
