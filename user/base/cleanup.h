/* SPDX-License-Identifier: GPL-2.0 */
/* Memory and descriptors that give themselves back at the end of their scope. */
#ifndef XLB_CLEANUP_H
#define XLB_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* _cleanup_(function) type variable = ...: function(&variable) is called when the scope ends. */
#define _cleanup_(function) __attribute__((cleanup(function)))

/* Hands the pointer over: the variable is NULL afterwards, so that its cleanup does nothing. */
#define steal_pointer(pointer)				\
	({						\
		__typeof__(*(pointer)) stolen_ = *(pointer); \
		*(pointer) = NULL;			\
		stolen_;				\
	})

/* For any pointer from malloc(). */
static inline void free_pointer(void *pointer)
{
	free(*(void **)pointer);
}

/* For descriptors; negative: none. */
static inline void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#endif
