// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list arguments;

	if (err) {
		char text[sizeof(err->text)];

		/* Aside first: the arguments may point into the old line. */
		va_start(arguments, format);
		vsnprintf(text, sizeof(text), format, arguments);
		va_end(arguments);
		memcpy(err->text, text, sizeof(text));
	}
	return -code;
}

int error_prefix(struct error *err, int code, const char *format, ...)
{
	char text[2 * sizeof(err->text)];
	va_list arguments;
	size_t length;

	if (!err)
		return code;
	va_start(arguments, format);
	vsnprintf(text, sizeof(err->text), format, arguments);
	va_end(arguments);
	length = strlen(text);
	snprintf(text + length, sizeof(text) - length, ": %s", err->text);
	text[sizeof(err->text) - 1] = '\0';
	memcpy(err->text, text, sizeof(err->text));
	return code;
}
