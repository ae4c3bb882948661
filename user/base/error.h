/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One line that says what was wrong, where, and what to do. Libraries fill it; commands print it
 * once.
 */
#ifndef XLB_ERROR_H
#define XLB_ERROR_H

struct error {
	char text[1024];
};

/*
 * Writes the line and returns -code, so that a function can end with `return error_set(err, ENOENT,
 * "...")`. err may be NULL.
 */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "what: " before the line that is there; returns code as it is (negative). */
int error_prefix(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
