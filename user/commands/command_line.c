// SPDX-License-Identifier: GPL-2.0
/*
 * Command lines. One table per verb feeds getopt_long(), --help and, through --help, the completion
 * scripts and the check of the man page: an option cannot be in one and not in the others.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands/command.h"
#include "commands/output.h"
#include "datapath/datapath.h"

const struct option_spec common_options[] = {
	{ OPTION_PIN_DIR, "pin-dir", "DIR",
	  "where the maps are pinned (default $XLB_PIN_DIR or " DATAPATH_PIN_DIR ")" },
	{ 'o', "output", "text|json", "for people (default) or for programs" },
	{ 'h', "help", NULL, "print this and exit" },
	{ 0 },
};

static struct {
	const char *pin_dir;
	bool json;
} defaults;

void command_line_defaults(const char *pin_dir, bool json)
{
	defaults.pin_dir = pin_dir;
	defaults.json = json;
}

static const char *default_pin_dir(void)
{
	const char *from_environment = getenv("XLB_PIN_DIR");

	if (defaults.pin_dir)
		return defaults.pin_dir;
	return from_environment && *from_environment ? from_environment : DATAPATH_PIN_DIR;
}

/* Appends a table to what getopt_long() takes; returns how many options there are now. */
static int add_options(struct command_line *line, int n, const struct option_spec *spec)
{
	char *letters = line->letters + strlen(line->letters);

	for (; spec && spec->id && n < OPTIONS_MAX; spec++) {
		line->options[n++] = (struct option){
			.name = spec->name,
			.has_arg = spec->value ? required_argument : no_argument,
			.val = spec->id,
		};
		if (spec->id >= OPTION_LONG)
			continue;
		*letters++ = spec->id;
		if (spec->value)
			*letters++ = ':';
	}
	*letters = '\0';
	return n;
}

void command_line_start(struct command_line *line, const struct command *command, int argc,
			char **argv)
{
	*line = (struct command_line){
		.command = command,
		.argc = argc,
		.argv = argv,
		.letters = ":", /* tell a missing value from an unknown option */
		.pin_dir = default_pin_dir(),
		.json = defaults.json,
	};
	/* In front of the verb, options end at the first word: the rest is the verb's. */
	if (!*command->name)
		strcpy(line->letters, "+:");
	add_options(line, add_options(line, 0, command->options), common_options);
	opterr = 0;
	optind = 0; /* 0, not 1: getopt starts anew, although main() used it before */
}

int usage_error(const struct command_line *line, const char *format, ...)
{
	const char *name = line->command->name, *space = *name ? " " : "";
	va_list arguments;
	char text[1024];

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	complain("%s%s%s; try 'lbctl%s%s --help'", name, *name ? ": " : "", text, space, name);
	return STATUS_USAGE;
}

int bad_value(const struct command_line *line, const struct error *err)
{
	return usage_error(line, "--%s %s", line->name, err->text);
}

static int finish(struct command_line *line, int status)
{
	line->status = status;
	return -1;
}

static const char *name_of(const struct command_line *line, int id)
{
	for (const struct option *option = line->options; option->name; option++)
		if (option->val == id)
			return option->name;
	return NULL;
}

/* getopt_long() returned '?': says which token it did not like. */
static int bad_option(struct command_line *line)
{
	const char *token = line->argv[optind - 1];

	if (optopt == 0 && strncmp(token, "--", 2) == 0)
		return usage_error(line, "unknown or ambiguous option '%s'", token);
	if (name_of(line, optopt))
		return usage_error(line, "option '--%s' takes no value: '%s'",
				   name_of(line, optopt), token);
	return usage_error(line, "unknown option '-%c'", optopt);
}

/* The nth word of the operands of --help, or NULL. */
static const char *operand_word(const struct command *command, int n, int *ret_length)
{
	const char *word = command->operands;

	for (;; word += *ret_length) {
		word += strspn(word, " ");
		if (!*word)
			return NULL;
		*ret_length = strcspn(word, " ");
		if (n-- == 0)
			return word;
	}
}

/* As many operands as the verb's description says? */
static int check_operands(struct command_line *line)
{
	int given = line->n_operands, length, words = 0;
	const char *word, *last = NULL;

	for (; (word = operand_word(line->command, words, &length)); words++) {
		if (words >= given && *word != '[')
			return usage_error(line, "%.*s is missing", length, word);
		last = word;
	}
	if (given > words && !(last && strstr(last, "...")))
		return usage_error(line, "unexpected '%s'", line->operands[words]);
	return STATUS_OK;
}

static int end_of_options(struct command_line *line)
{
	int status;

	line->operands = line->argv + optind;
	line->n_operands = line->argc - optind;
	status = check_operands(line);
	return status == STATUS_OK ? 0 : finish(line, status);
}

int command_line_next(struct command_line *line)
{
	int option;

	for (;;) {
		option = getopt_long(line->argc, line->argv, line->letters, line->options, NULL);
		line->value = optarg;
		switch (option) {
		case -1:
			return end_of_options(line);
		case OPTION_PIN_DIR:
			if (!*optarg)
				return finish(line, usage_error(line, "--pin-dir: an empty name"));
			line->pin_dir = optarg;
			break;
		case 'o':
			line->json = strcmp(optarg, "json") == 0;
			if (!line->json && strcmp(optarg, "text") != 0)
				return finish(line,
					      usage_error(line, "--output %s: not text or json",
							  optarg));
			break;
		case 'h':
			if (line->command->help)
				line->command->help();
			else
				command_help(line->command);
			return finish(line, STATUS_OK);
		case ':':
			return finish(line, usage_error(line, "option '%s' needs a value",
							line->argv[optind - 1]));
		case '?':
			return finish(line, bad_option(line));
		default:
			line->name = name_of(line, option);
			return option;
		}
	}
}

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number,
		 struct error *err)
{
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	/* strtoull() would take blanks and a sign. */
	if (text[0] < '0' || text[0] > '9' || *end || errno || number < min || number > max)
		return error_set(err, EINVAL, "%s: not a number from %llu to %llu", text,
				 (unsigned long long)min, (unsigned long long)max);
	*ret_number = number;
	return 0;
}

#define HELP_COLUMN 37
#define HELP_OPTION 30 /* in front of it, with letter and blanks */
#define HELP_WIDTH 62

/* The text from HELP_COLUMN on, as many words in a line as fit; `taken` of the first are taken. */
static void print_wrapped(const char *text, int taken)
{
	int width = HELP_WIDTH - taken;

	while ((int)strlen(text) > width) {
		int length = width;

		while (length > 0 && text[length] != ' ')
			length--;
		if (length == 0)
			break;
		printf("%.*s\n%*s", length, text, HELP_COLUMN, "");
		text += length + 1;
		width = HELP_WIDTH;
	}
	puts(text);
}

void command_help_options(const struct option_spec *options)
{
	for (const struct option_spec *spec = options; spec && spec->id; spec++) {
		char text[80];

		snprintf(text, sizeof(text), "--%s%s%s", spec->name, spec->value ? " " : "",
			 spec->value ? spec->value : "");
		if (spec->id < OPTION_LONG)
			printf("  -%c, %-*s ", spec->id, HELP_OPTION, text);
		else
			printf("      %-*s ", HELP_OPTION, text);
		print_wrapped(spec->help,
			      strlen(text) > HELP_OPTION ? strlen(text) - HELP_OPTION : 0);
	}
}

void command_help(const struct command *command)
{
	printf("Usage: lbctl %s [OPTION]...%s%s\n\n%s.\n", command->name,
	       *command->operands ? " " : "", command->operands, command->summary);
	if (command->details)
		printf("\n%s", command->details);
	if (command->options) {
		puts("\nOptions:");
		command_help_options(command->options);
	}
	puts("\nOptions of every command:");
	command_help_options(common_options);
}
