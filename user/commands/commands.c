// SPDX-License-Identifier: GPL-2.0
/*
 * The table of verbs, and the way from a command line to one of them. A verb is one word ("attach")
 * or a group and a word ("services add").
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include <xlb/abi.h>

#include "commands/command.h"
#include "commands/output.h"

static int command_help_verb(int argc, char **argv);
static int command_version(int argc, char **argv);

static const struct command verb_help = {
	.name = "help",
	.operands = "[COMMAND] [WORD]",
	.summary = "Say how lbctl, or one of its commands, is used",
	.run = command_help_verb,
};

static const struct command verb_version = {
	.name = "version",
	.operands = "",
	.summary = "Print the versions of lbctl and of the maps that it understands",
	.run = command_version,
};

static const struct command *const commands[] = {
	&verb_attach,	      &verb_detach,	   &verb_status,	&verb_services_list,
	&verb_services_show,  &verb_services_add,  &verb_services_set,	&verb_services_del,
	&verb_backends_list,  &verb_backends_show, &verb_backends_add,	&verb_backends_set,
	&verb_backends_drain, &verb_backends_del,  &verb_backends_sync, &verb_trace,
	&verb_help,	      &verb_version,
};

#define for_each_command(at)                                                                       \
	for (const struct command *const *(at) = commands;                                         \
	     (at) < commands + sizeof(commands) / sizeof(*commands); (at)++)

/* Is `name` the command "word", or in the group "word"? Then returns what follows, else NULL. */
static const char *after_word(const char *name, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(name, word, length) != 0)
		return NULL;
	if (name[length] == ' ')
		return name + length + 1;
	return name[length] ? NULL : name + length;
}

/*
 * The command that the words name, and how many of them its name is. NULL: there is none;
 * *ret_group: the first word is a group all the same.
 */
static const struct command *find_command(char **words, int n_words, int *ret_used, bool *ret_group)
{
	bool group = false;

	for_each_command(at)
	{
		const char *rest = n_words ? after_word((*at)->name, words[0]) : NULL;

		if (!rest)
			continue;
		group = *rest;
		if (!*rest || (n_words > 1 && strcmp(rest, words[1]) == 0)) {
			*ret_used = *rest ? 2 : 1;
			return *at;
		}
	}
	*ret_group = group;
	return NULL;
}

static void print_summary(const struct command *command)
{
	printf("  %-16s %s\n", command->name, command->summary);
}

static const struct option_spec options_before[] = {
	{ 'V', "version", NULL, "print the version and exit" },
	{ 0 },
};

static void help_all(void)
{
	puts("Usage: lbctl [OPTION]... COMMAND [ARGUMENT]...\n\n"
	     "An L4 load balancer in the kernel's XDP hook, for Kubernetes Services.\n\n"
	     "Commands:");
	for_each_command(at) print_summary(*at);
	puts("\nOptions:");
	command_help_options(options_before);
	puts("\nOptions of every command:");
	command_help_options(common_options);
	puts("\n'lbctl COMMAND --help' says more, lbctl(8) all.");
}

/* What stands before the verb is parsed as the options of a command without a name. */
static const struct command verb_none = {
	.name = "",
	.operands = "[COMMAND...]",
	.options = options_before,
	.help = help_all,
};

static int help_group(const char *group)
{
	printf("Usage: lbctl %s COMMAND [ARGUMENT]...\n\nCommands:\n", group);
	for_each_command(at) if (after_word((*at)->name, group)) print_summary(*at);
	printf("\n'lbctl %s COMMAND --help' says more.\n", group);
	return STATUS_OK;
}

/* `group` without a word that it knows. */
static int bad_word(const char *group, const char *word)
{
	char words[128] = "";
	size_t length = 0;

	for_each_command(at)
	{
		const char *rest = after_word((*at)->name, group);

		if (rest && length < sizeof(words))
			length += snprintf(words + length, sizeof(words) - length, "%s%s",
					   length ? ", " : "", rest);
	}
	if (word)
		complain("%s: unknown command '%s', not one of %s; try 'lbctl %s --help'", group,
			 word, words, group);
	else
		complain("%s: a command is missing, one of %s; try 'lbctl %s --help'", group, words,
			 group);
	return STATUS_USAGE;
}

static bool is_help(const char *word)
{
	return word && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0);
}

static int unknown_command(const struct command_line *line, char **words, int n_words, bool group)
{
	if (!group)
		return usage_error(line, "unknown command '%s'", words[0]);
	if (is_help(words[1]))
		return help_group(words[0]);
	return bad_word(words[0], n_words > 1 ? words[1] : NULL);
}

static int command_help_verb(int argc, char **argv)
{
	const struct command *command;
	struct command_line line;
	bool group;
	int used;

	command_line_start(&line, &verb_help, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	if (line.n_operands == 0) {
		help_all();
		return STATUS_OK;
	}
	command = find_command(line.operands, line.n_operands, &used, &group);
	if (command && used == line.n_operands) {
		command_help(command);
		return STATUS_OK;
	}
	if (!command && group && line.n_operands == 1)
		return help_group(line.operands[0]);
	return usage_error(&line, "unknown command '%s%s%s'", line.operands[0],
			   line.n_operands > 1 ? " " : "",
			   line.n_operands > 1 ? line.operands[1] : "");
}

static int print_version(bool json)
{
	if (json)
		return print_json(
			json_pack("{s:s, s:i}", "version", XLB_VERSION, "abi", XLB_ABI_VERSION));
	printf("lbctl %s (ABI %d)\n", XLB_VERSION, XLB_ABI_VERSION);
	return STATUS_OK;
}

static int command_version(int argc, char **argv)
{
	struct command_line line;

	command_line_start(&line, &verb_version, argc, argv);
	if (command_line_next(&line) < 0)
		return line.status;
	return print_version(line.json);
}

static int run(int argc, char **argv)
{
	const struct command *command;
	struct command_line line;
	bool group, version = false;
	int option, used;

	command_line_start(&line, &verb_none, argc, argv);
	while ((option = command_line_next(&line)) > 0)
		version = true; /* there is no other */
	if (option < 0)
		return line.status;
	if (version)
		return print_version(line.json);
	if (line.n_operands == 0)
		return usage_error(&line, "a command is missing");
	command_line_defaults(line.pin_dir, line.json);
	command = find_command(line.operands, line.n_operands, &used, &group);
	if (!command)
		return unknown_command(&line, line.operands, line.n_operands, group);
	return command->run(line.n_operands - used + 1, line.operands + used - 1);
}

int commands_main(int argc, char **argv)
{
	int status = run(argc, argv);

	/* What could not be written (a full disk) must not look like success. */
	if (fflush(stdout) || ferror(stdout))
		return fail("standard output: %s", strerror(errno));
	return status;
}
