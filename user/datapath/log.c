// SPDX-License-Identifier: GPL-2.0
/*
 * libbpf and libxdp print as they go; here that is kept instead, so that the end of it (the
 * verifier's last words, the kernel's own message) can go into an error.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>
#include <xdp/libxdp.h>

#include "datapath/internal.h"

#define LOG_BYTES (64 * 1024)

static char text[LOG_BYTES];
static size_t length;

static void log_add(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));

static void log_add(const char *format, va_list arguments)
{
	char *piece;
	const char *from;
	int n = vasprintf(&piece, format, arguments);
	size_t size = n < 0 ? 0 : (size_t)n;

	if (n < 0)
		return;
	/* Of a verifier's log, which comes as one piece, the end is what matters. */
	from = piece + size;
	if (size > sizeof(text) / 2)
		size = sizeof(text) / 2;
	from -= size;
	if (length + size > sizeof(text)) {
		size_t keep = sizeof(text) / 2;

		memmove(text, text + length - keep, keep);
		length = keep;
	}
	memcpy(text + length, from, size);
	length += size;
	free(piece);
}

static int log_libbpf(enum libbpf_print_level level, const char *format, va_list arguments)
{
	if (level != LIBBPF_DEBUG)
		log_add(format, arguments);
	return 0;
}

static int log_libxdp(enum libxdp_print_level level, const char *format, va_list arguments)
{
	if (level != LIBXDP_DEBUG)
		log_add(format, arguments);
	return 0;
}

void log_begin(void)
{
	length = 0;
	libbpf_set_print(log_libbpf);
	libxdp_set_print(log_libxdp);
}

const char *log_tail(size_t most)
{
	static char tail[1024];
	size_t end = length, start;

	if (most >= sizeof(tail))
		most = sizeof(tail) - 1;
	while (end && text[end - 1] == '\n')
		end--;
	start = end > most ? end - most : 0;
	/* From the start of a line. */
	if (start) {
		const char *newline = memchr(text + start, '\n', end - start);

		if (newline)
			start = newline + 1 - text;
	}
	memcpy(tail, text + start, end - start);
	tail[end - start] = '\0';
	return tail;
}
