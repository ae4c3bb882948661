// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands/commands.h"
#include "commands/output.h"

#define COLUMNS_MAX 16

/* Six digits are enough for a percentage. */
#define FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(6))

struct cell {
	size_t text; /* where it begins in `text` of the table */
	unsigned int length;
	enum colour colour;
};

struct table {
	const struct column *columns;
	int n_columns;
	unsigned int width[COLUMNS_MAX];
	struct cell *cells;
	size_t n_cells, cells_allocated;
	char *text; /* all cells, one after the other: a row costs no allocation of its own */
	size_t n_text, text_allocated;
	bool failed;
};

bool colour_wanted(void)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	if (no_color && *no_color)
		return false;
	return isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

static const char *escape_of(enum colour colour)
{
	static const char *const escapes[] = {
		[COLOUR_NONE] = "",	      [COLOUR_BOLD] = "\033[1m",
		[COLOUR_RED] = "\033[31m",    [COLOUR_GREEN] = "\033[32m",
		[COLOUR_YELLOW] = "\033[33m",
	};

	return escapes[colour];
}

struct table *table_new(const struct column *columns)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->columns = columns;
	while (table->n_columns < COLUMNS_MAX && columns[table->n_columns].title) {
		table->width[table->n_columns] = strlen(columns[table->n_columns].title);
		table->n_columns++;
	}
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	free(table->cells);
	free(table->text);
	free(table);
}

void table_free_pointer(struct table **table)
{
	table_free(*table);
}

/* Makes room for `more` elements of `size` behind the n that are there. */
static bool reserve(void **array, size_t *allocated, size_t n, size_t more, size_t size)
{
	size_t wanted = *allocated ? *allocated : 1024;
	void *larger;

	if (n + more <= *allocated)
		return true;
	while (wanted < n + more)
		wanted *= 2;
	larger = realloc(*array, wanted * size);
	if (!larger)
		return false;
	*array = larger;
	*allocated = wanted;
	return true;
}

static void add_cell(struct table *table, enum colour colour, const char *text, size_t length)
{
	unsigned int *width = &table->width[table->n_cells % table->n_columns];

	if (table->failed ||
	    !reserve((void **)&table->cells, &table->cells_allocated, table->n_cells, 1,
		     sizeof(*table->cells)) ||
	    !reserve((void **)&table->text, &table->text_allocated, table->n_text, length, 1)) {
		table->failed = true;
		return;
	}
	table->cells[table->n_cells++] = (struct cell){ table->n_text, length, colour };
	memcpy(table->text + table->n_text, text, length);
	table->n_text += length;
	if (length > *width)
		*width = length;
}

void table_cell(struct table *table, const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	add_cell(table, COLOUR_NONE, text, strlen(text));
}

void table_cell_coloured(struct table *table, enum colour colour, const char *text)
{
	add_cell(table, colour, text, strlen(text));
}

static void print_cell(const struct table *table, int column, enum colour colour, const char *text,
		       unsigned int length)
{
	const char *start = escape_of(colour), *end = *start ? "\033[0m" : "";
	bool right = table->columns[column].right, last = column == table->n_columns - 1;
	int padding = table->width[column] - length;

	printf("%s%*s%s%.*s%s%*s", column ? "  " : "", right ? padding : 0, "", start, (int)length,
	       text, end, right || last ? 0 : padding, "");
	if (last)
		putchar('\n');
}

int table_print(const struct table *table)
{
	bool colour = colour_wanted();

	if (table->failed)
		return fail("out of memory");
	for (int i = 0; i < table->n_columns; i++)
		print_cell(table, i, colour ? COLOUR_BOLD : COLOUR_NONE, table->columns[i].title,
			   strlen(table->columns[i].title));
	for (size_t i = 0; i < table->n_cells; i++) {
		const struct cell *cell = &table->cells[i];

		print_cell(table, i % table->n_columns, colour ? cell->colour : COLOUR_NONE,
			   table->text + cell->text, cell->length);
	}
	return STATUS_OK;
}

int print_json(json_t *value)
{
	int status = STATUS_OK;

	if (!value || json_dumpf(value, stdout, FLAGS | JSON_ENCODE_ANY) < 0)
		status = fail(
			"the JSON could not be made: out of memory, or text that is not UTF-8");
	else
		putchar('\n');
	json_decref(value);
	return status;
}

void json_list_add(struct json_list *list, json_t *value)
{
	if (list->failed || !value) {
		list->failed = true;
		json_decref(value);
		return;
	}
	fputs(list->n++ ? ",\n" : "[", stdout);
	list->failed = json_dumpf(value, stdout, FLAGS) < 0;
	json_decref(value);
}

int json_list_end(struct json_list *list)
{
	if (list->failed)
		return fail("the JSON could not be made: out of memory, or text that is not UTF-8");
	puts(list->n ? "]" : "[]");
	return STATUS_OK;
}

/* An argument may hold anything: it must not drive a terminal, nor fake lines. */
static void print_line(const char *format, va_list arguments)
{
	char text[2048];

	vsnprintf(text, sizeof(text), format, arguments);
	for (char *at = text; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = *at == '\n' ? ' ' : '?';
	fflush(stdout);
	fprintf(stderr, "lbctl: %s\n", text);
}

void complain(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print_line(format, arguments);
	va_end(arguments);
}

int fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print_line(format, arguments);
	va_end(arguments);
	return STATUS_FAILED;
}
