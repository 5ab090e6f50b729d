/*
 * Counts allocations of the calling thread, for tests that show there are none.
 *
 * These definitions stand before those of libc and of DPDK's shared libraries in
 * the search order of the dynamic linker, so calls from any library come here
 * first and go on to the real function. Linked only into programs that refer to
 * allocation_count_*, and only with the feature allocation-count.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* Initial-exec: reading these never allocates. */
static __thread uint64_t c_calls __attribute__((tls_model("initial-exec")));
static __thread uint64_t dpdk_calls __attribute__((tls_model("initial-exec")));

uint64_t allocation_count_c(void)
{
	return c_calls;
}

uint64_t allocation_count_dpdk(void)
{
	return dpdk_calls;
}

void *malloc(size_t size)
{
	c_calls++;
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	c_calls++;
	return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	c_calls++;
	return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size)
{
	c_calls++;
	return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	c_calls++;
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	void *memory;

	c_calls++;
	memory = __libc_memalign(alignment, size);
	if (memory == NULL)
		return ENOMEM;
	*out = memory;
	return 0;
}

/* In a static program there is one rte_malloc, and it is DPDK's: these stay uncounted. */
#ifndef DPDK_STATIC

/* The real function behind one of ours; found once. */
#define REAL(name) \
	static __typeof__(&name) real; \
	if (real == NULL) \
		real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* As rte_malloc.h declares them; repeated so that no DPDK header is needed here. */
void *rte_malloc(const char *type, size_t size, unsigned int align);
void *rte_zmalloc(const char *type, size_t size, unsigned int align);
void *rte_calloc(const char *type, size_t count, size_t size, unsigned int align);
void *rte_realloc(void *old, size_t size, unsigned int align);
void *rte_malloc_socket(const char *type, size_t size, unsigned int align, int socket);
void *rte_zmalloc_socket(const char *type, size_t size, unsigned int align, int socket);
void *rte_calloc_socket(const char *type, size_t count, size_t size, unsigned int align, int socket);
void *rte_realloc_socket(void *old, size_t size, unsigned int align, int socket);

void *rte_malloc(const char *type, size_t size, unsigned int align)
{
	REAL(rte_malloc);
	dpdk_calls++;
	return real(type, size, align);
}

void *rte_zmalloc(const char *type, size_t size, unsigned int align)
{
	REAL(rte_zmalloc);
	dpdk_calls++;
	return real(type, size, align);
}

void *rte_calloc(const char *type, size_t count, size_t size, unsigned int align)
{
	REAL(rte_calloc);
	dpdk_calls++;
	return real(type, count, size, align);
}

void *rte_realloc(void *old, size_t size, unsigned int align)
{
	REAL(rte_realloc);
	dpdk_calls++;
	return real(old, size, align);
}

void *rte_calloc_socket(const char *type, size_t count, size_t size, unsigned int align, int socket)
{
	REAL(rte_calloc_socket);
	dpdk_calls++;
	return real(type, count, size, align, socket);
}

void *rte_realloc_socket(void *old, size_t size, unsigned int align, int socket)
{
	REAL(rte_realloc_socket);
	dpdk_calls++;
	return real(old, size, align, socket);
}

void *rte_malloc_socket(const char *type, size_t size, unsigned int align, int socket)
{
	REAL(rte_malloc_socket);
	dpdk_calls++;
	return real(type, size, align, socket);
}

void *rte_zmalloc_socket(const char *type, size_t size, unsigned int align, int socket)
{
	REAL(rte_zmalloc_socket);
	dpdk_calls++;
	return real(type, size, align, socket);
}

#endif /* DPDK_STATIC */
