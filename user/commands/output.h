/* SPDX-License-Identifier: GPL-2.0 */
/* What commands print: tables for people, JSON for programs, errors for both. */
#ifndef XLB_OUTPUT_H
#define XLB_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "base/error.h"

enum colour {
	COLOUR_NONE,
	COLOUR_BOLD,
	COLOUR_RED,
	COLOUR_GREEN,
	COLOUR_YELLOW,
};

/* True where standard output is a terminal that may be coloured (NO_COLOR, TERM=dumb). */
bool colour_wanted(void);

/* A column of a table; the last one is not padded. A table of them ends with an empty title. */
struct column {
	const char *title;
	bool right; /* numbers */
};

/*
 * Rows are collected, then printed with a header, each column as wide as its widest cell. Running
 * out of memory is remembered and told by table_print(), so that filling needs no checks.
 */
struct table;

struct table *table_new(const struct column *columns); /* borrows them; NULL: out of memory */
void table_free(struct table *table);		       /* NULL is fine */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_cell_coloured(struct table *table, enum colour colour, const char *text);
/* Prints to standard output and returns an exit status. */
int table_print(const struct table *table);
/* As an argument of _cleanup_. */
void table_free_pointer(struct table **table);

/* Prints one value and a newline; takes the reference. NULL (out of memory) is an error. */
int print_json(json_t *value);

/*
 * Prints an array whose elements are not known yet, one in a line: json_list_add() each (taking the
 * reference), then json_list_end(). All of it goes to standard output as it comes, so that a long
 * list needs no memory.
 */
struct json_list {
	size_t n;
	bool failed;
};
void json_list_add(struct json_list *list, json_t *value);
int json_list_end(struct json_list *list);

/* Prints "lbctl: ..." to standard error: one line of printable text, whatever is in it. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, and returns STATUS_FAILED. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
