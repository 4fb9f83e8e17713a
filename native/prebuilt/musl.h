// Read before everything else where the addon is compiled for musl: tells the headers of a C++ library that was set up for
// glibc what musl has otherwise (see ../prebuild.mjs).
#define __GLIBC_PREREQ(major, minor) 0
#define _GLIBCXX_GTHREAD_USE_WEAK 0
#include <bits/c++config.h>
#undef _GLIBCXX_USE_PTHREAD_COND_CLOCKWAIT
#undef _GLIBCXX_USE_PTHREAD_MUTEX_CLOCKLOCK
#define __locale_t locale_t
#define __uselocale uselocale
// RWF_NOWAIT, which sys/uio.h has in later ones.
#include <linux/fs.h>
