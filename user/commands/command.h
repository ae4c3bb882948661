/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A verb of lbctl: its place in the table, and its command line.
 *
 * Each verb's file defines one `struct command`: what it is called, what --help says of it, which
 * options it takes, and the function that runs it. commands.c lists them all. A verb reads its
 * options with command_line_next() and returns an exit status:
 *
 *	struct command_line line;
 *	int option;
 *
 *	command_line_start(&line, &verb_frob, argc, argv);
 *	while ((option = command_line_next(&line)) > 0)
 *		if (option == 'x' && parse(line.value, &x, &err) < 0)
 *			return bad_value(&line, &err);
 *	if (option < 0)
 *		return line.status;
 *
 * The options that every verb takes (--pin-dir, -o, --help) never reach the verb; nor does a wrong
 * option, or a wrong number of operands: those end with a line on stderr and STATUS_USAGE.
 */
#ifndef XLB_COMMAND_H
#define XLB_COMMAND_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "commands/commands.h"

/* One option, for getopt_long() and for --help. A table of them ends with an empty one. */
struct option_spec {
	int id;		   /* its letter, or OPTION_LONG + n if it has none; > 0 */
	const char *name;  /* the long name, without dashes */
	const char *value; /* as --help shows it: "N", or its choices: "a|b"; NULL: takes none */
	const char *help;  /* a phrase */
};

#define OPTION_LONG 256
#define OPTIONS_MAX 32 /* of one verb, those of every verb included */

struct command {
	const char *name; /* "attach", or with its group: "services add" */
	/*
	 * The operands, as --help shows them: "SERVICE ADDR[:PORT]". How many are allowed follows
	 * from it: each word is one, "[WORD]" may be left out, "WORD..." may be repeated.
	 */
	const char *operands;
	const char *summary;		   /* one line without a full stop */
	const char *details;		   /* whole lines that end with a newline, or NULL */
	const struct option_spec *options; /* its own; NULL: none */
	int (*run)(int argc, char **argv); /* argv[0] is the last word of the name */
	void (*help)(void);		   /* instead of command_help(); NULL: that */
};

struct command_line {
	const struct command *command;
	int argc;
	char **argv;
	struct option options[OPTIONS_MAX + 1];
	char letters[3 * OPTIONS_MAX + 3];

	const char *pin_dir; /* --pin-dir, XLB_PIN_DIR or the default */
	bool json;	     /* -o json */
	const char *name;    /* of the option that was just returned: its long name, */
	const char *value;   /* and its value */
	int status;	     /* after command_line_next() < 0: what to exit with */
	char **operands;     /* after command_line_next() == 0; ends with NULL */
	int n_operands;
};

/* Borrows argv, which getopt_long() reorders. */
void command_line_start(struct command_line *line, const struct command *command, int argc,
			char **argv);
/* The id of the next option; 0: no more; < 0: return line->status, all is said. */
int command_line_next(struct command_line *line);
/* Prints "lbctl: VERB: what; try 'lbctl VERB --help'" and returns STATUS_USAGE. */
int usage_error(const struct command_line *line, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same for the value of the option that was just returned: "--NAME: " and the line in err. */
int bad_value(const struct command_line *line, const struct error *err);
/* A decimal number of min..max, and nothing else. -EINVAL, with a line that names the text. */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number,
		 struct error *err);

/* Options in front of the verb, which hold unless repeated after it. NULL and false: not given. */
void command_line_defaults(const char *pin_dir, bool json);
/* What `lbctl VERB --help` prints. */
void command_help(const struct command *command);
void command_help_options(const struct option_spec *options);
/* The options that every verb takes, as a table that ends with an empty one. */
extern const struct option_spec common_options[];

enum {
	OPTION_PIN_DIR = OPTION_LONG + 1000, /* clear of the ids that verbs give out */
};

extern const struct command verb_attach, verb_detach, verb_status, verb_trace;
extern const struct command verb_services_list, verb_services_show;
extern const struct command verb_services_add, verb_services_set, verb_services_del;
extern const struct command verb_backends_list, verb_backends_show;
extern const struct command verb_backends_add, verb_backends_set, verb_backends_drain;
extern const struct command verb_backends_del, verb_backends_sync;

#endif
