// SPDX-License-Identifier: GPL-2.0
/*
 * The filter of system calls, seen from inside: what is refused fails with EPERM and is said once,
 * what is allowed works, and a program is run only where a plugin may be. Each test confines a
 * child of its own; nothing that it is refused would do harm.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "commands/confine.h"
#include "skipping.h"

/* What a child said on standard error; its exit status is 0 where all was as expected. */
struct outcome {
	int status;
	char text[2048];
};

static void in_child(bool plugins, int (*does)(void), struct outcome *ret_outcome)
{
	int pipe_fds[2];
	size_t n = 0;
	ssize_t got;
	pid_t child;

	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		dup2(pipe_fds[1], STDERR_FILENO);
		_exit(confine(plugins, NULL) ? 99 : does());
	}
	close(pipe_fds[1]);
	while ((got = read(pipe_fds[0], ret_outcome->text + n,
			   sizeof(ret_outcome->text) - 1 - n)) > 0)
		n += got;
	ret_outcome->text[n] = '\0';
	close(pipe_fds[0]);
	waitpid(child, &ret_outcome->status, 0);
}

static int is_refused(long result)
{
	return result == -1 && errno == EPERM;
}

static int mounts_twice(void)
{
	return is_refused(mount("none", "/nowhere", "tmpfs", 0, NULL)) &&
	       is_refused(mount("none", "/nowhere", "tmpfs", 0, NULL)) ? 0 : 1;
}

static void refused_is_said_once(void **state)
{
	struct outcome outcome;

	(void)state;
	in_child(false, mounts_twice, &outcome);
	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.text, "lbctl: system call "));
	assert_non_null(strstr(outcome.text, "(mount) refused by the filter of the watch: EPERM\n"));
	assert_ptr_equal(strchr(outcome.text, '\n'), strrchr(outcome.text, '\n'));
}

static int tries_families(void)
{
	static const int families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };

	for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
		if (socket(families[i], SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0)
			return 10 + i;
	return is_refused(socket(AF_PACKET, SOCK_RAW, 0)) ? 0 : 1;
}

static void sockets_of_four_families(void **state)
{
	struct outcome outcome;

	(void)state;
	in_child(false, tries_families, &outcome);
	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.text, "(socket) refused"));
}

static int tries_terminal(void)
{
	return is_refused(ioctl(STDERR_FILENO, TIOCSTI, "x")) &&
	       is_refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL)) ? 0 : 1;
}

static void no_typing_into_terminals(void **state)
{
	struct outcome outcome;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	SKIP_BECAUSE("the address sanitizer traces its own threads");
#endif
	in_child(false, tries_terminal, &outcome);
	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.text, "(ioctl) refused"));
	assert_non_null(strstr(outcome.text, "(ptrace) refused"));
}

static int executes(void)
{
	char name[] = "true", *const argv[] = { name, NULL };

	execv("/bin/true", argv);
	return errno == EPERM ? 42 : 1;
}

static void programs_only_with_plugins(void **state)
{
	struct outcome outcome;

	(void)state;
	in_child(false, executes, &outcome);
	assert_int_equal(WEXITSTATUS(outcome.status), 42);
	assert_non_null(strstr(outcome.text, "(execve) refused"));
	in_child(true, executes, &outcome);
	assert_int_equal(outcome.status, 0);
	assert_string_equal(outcome.text, "");
}

static int has_no_rights(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && is_refused(unshare(CLONE_NEWNS)) ?
		       0 : 1;
}

static void a_plugin_may_not_unshare(void **state)
{
	struct outcome outcome;

	(void)state;
	in_child(true, has_no_rights, &outcome);
	/* The kernel alone would have allowed nothing of it either: no capability is left. */
	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.text, "(unshare) refused"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused_is_said_once),
		cmocka_unit_test(sockets_of_four_families),
		cmocka_unit_test(no_typing_into_terminals),
		cmocka_unit_test(programs_only_with_plugins),
		cmocka_unit_test(a_plugin_may_not_unshare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
