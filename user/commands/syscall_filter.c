// SPDX-License-Identifier: GPL-2.0
/*
 * The system calls that a watch may make: an event loop, sockets, threads of the resolver, files,
 * bpf(). What else is asked for fails with EPERM, and a line on standard error names it, once for
 * each call; the kernel's log has it too.
 *
 * An exec plugin inherits the filter. It may be anything, in Go, Python or a shell, so if there is
 * one in the kubeconfig, what ordinary programs do is allowed as well; for a plugin, whose handlers
 * of signals are its own, a refused call is the end (SIGSYS), and on_exit_of_plugin() says so.
 */
#include "commands/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include <linux/sockios.h>
#include <seccomp.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41	/* glibc names its memory with it */
#endif

#define CALLS_MAX 512	/* that a name is kept of: those of Linux 6.18 end at 470 */
#define NAME_BYTES 28

static const char *const calls[] = {
	/* memory and threads */
	"brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "membarrier", "clone", "clone3",
	"futex", "set_robust_list", "rseq", "set_tid_address", "sched_yield", "sched_getaffinity",
	"gettid", "getcpu", "exit", "exit_group",
	/* descriptors and files */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "open", "openat", "openat2",
	"close", "close_range", "lseek", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
	"fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64",
	"getcwd", "fcntl", "flock", "dup", "dup2", "dup3", "pipe2", "umask", "fadvise64",
	/* libxdp's pins of devices that are gone */
	"mkdir", "mkdirat", "unlink", "unlinkat", "rmdir",
	/* the event loop */
	"poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "timerfd_create",
	"timerfd_settime", "timerfd_gettime", "nanosleep", "clock_nanosleep", "clock_gettime",
	"clock_getres", "gettimeofday", "time", "restart_syscall",
	/* sockets; which, see socket_families */
	"connect", "bind", "getsockname", "getpeername", "getsockopt", "setsockopt", "sendto",
	"sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "shutdown", "socketpair",
	"listen", "accept4",	/* health checks */
	/* signals */
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait",
	"sigaltstack", "kill", "tgkill",
	/* asking */
	"getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
	"getgroups", "capget", "getrandom", "uname", "sysinfo", "prlimit64", "getrlimit",
	"getrusage", "times",
	/* maps, and programs on devices */
	"bpf",
#ifdef __SANITIZE_ADDRESS__
	"ptrace", "wait4", "prctl",	/* the search for leaks, at the end */
#endif
	NULL
};

/* For programs that are not ours, and for starting them. */
static const char *const calls_of_plugins[] = {
	"execve", "execveat", "fork", "vfork", "wait4", "waitid", "pidfd_open",
	"pidfd_send_signal", "setpgid", "setsid", "getpgid", "getpgrp", "getsid", "arch_prctl",
	"prctl", "ioctl", "socket", "accept", "creat", "pipe", "chdir",
	"fchdir", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown",
	"fchownat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
	"truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "utime",
	"utimes", "futimesat", "utimensat", "getdents", "copy_file_range", "sendfile", "splice",
	"tee", "preadv", "pwritev", "preadv2", "pwritev2", "readahead", "getxattr", "lgetxattr",
	"fgetxattr", "listxattr", "llistxattr", "flistxattr", "inotify_init", "inotify_init1",
	"inotify_add_watch", "inotify_rm_watch", "eventfd", "signalfd", "signalfd4", "memfd_create",
	"mincore", "msync", "mlock", "mlock2", "munlock", "get_robust_list", "futex_wait",
	"futex_wake", "futex_requeue", "futex_waitv", "get_mempolicy", "mbind", "set_mempolicy",
	"sched_setaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr",
	"sched_get_priority_max", "sched_get_priority_min", "sched_setscheduler", "getpriority",
	"setpriority", "ioprio_get", "alarm", "setitimer", "getitimer", "timer_create",
	"timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete", "pause",
	"rt_sigsuspend", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill", "setrlimit", "capset",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid",
	"setfsgid", "setgroups", "seccomp", "landlock_create_ruleset", "landlock_add_rule",
	"landlock_restrict_self", "shmget", "shmat", "shmctl", "shmdt", "epoll_ctl_old",
	"clock_adjtime", "adjtimex", "mseal", "map_shadow_stack", "cachestat", "rt_sigtimedwait",
	NULL
};

/* Calls that are allowed with some first or second arguments only. */
static const struct choice {
	const char *call;
	unsigned int argument;
	uint64_t value;
} choices[] = {
	{ "socket", 0, AF_UNIX },	/* the resolver's helpers */
	{ "socket", 0, AF_INET },
	{ "socket", 0, AF_INET6 },
	{ "socket", 0, AF_NETLINK },
	{ "ioctl", 1, FIONBIO },
	{ "ioctl", 1, FIONREAD },
	{ "ioctl", 1, TCGETS },		/* isatty() */
	{ "ioctl", 1, TIOCGWINSZ },
	{ "ioctl", 1, SIOCGIFNAME },
	{ "ioctl", 1, SIOCGIFINDEX },
	{ "ioctl", 1, SIOCETHTOOL },
	{ "prctl", 0, PR_SET_NAME },
	{ "prctl", 0, PR_SET_VMA },
	{ "prctl", 0, PR_CAPBSET_READ },
};

/* ---- saying what was refused ---- */

static char names[CALLS_MAX][NAME_BYTES];
static atomic_bool told[CALLS_MAX];

/* All there is at the time: looking names up takes memory, which a signal handler cannot. */
static void names_fill(void)
{
	for (int number = 0; number < CALLS_MAX; number++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);

		snprintf(names[number], NAME_BYTES, "%s", name ? name : "");
		free(name);
	}
}

static void tell_refused(int number)
{
	char line[128], digits[12];
	size_t n = sizeof(digits);
	unsigned int rest = number;

	if (number < 0 || number >= CALLS_MAX || atomic_exchange(&told[number], true))
		return;
	digits[--n] = '\0';
	do
		digits[--n] = '0' + rest % 10;
	while (rest /= 10);
	line[0] = '\0';
	strcat(line, "lbctl: system call ");
	strcat(line, digits + n);
	strcat(line, " (");
	strcat(line, *names[number] ? names[number] : "unknown");
	strcat(line, ") refused by the filter of the watch: EPERM\n");
	if (write(STDERR_FILENO, line, strlen(line)) < 0)
		return;
}

#if defined(__x86_64__)
#define RETURN_REGISTER(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define RETURN_REGISTER(context) ((context)->uc_mcontext.regs[0])
#endif

#ifdef RETURN_REGISTER
/* The kernel did not make the call: its result is for us to give. */
static void on_refused(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	ucontext_t *machine = context;

	(void)number;
	tell_refused(info->si_syscall);
	RETURN_REGISTER(machine) = -EPERM;
	errno = saved;
}

static uint32_t refusal(void)
{
	struct sigaction action = {
		.sa_sigaction = on_refused,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART,
	};

	return sigaction(SIGSYS, &action, NULL) ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_TRAP;
}
#else
/* Where the result's register is not known here, only the kernel's log tells. */
static uint32_t refusal(void)
{
	return SCMP_ACT_ERRNO(EPERM);
}
#endif

/* ---- the filter ---- */

static int allow(scmp_filter_ctx filter, const char *name, const struct scmp_arg_cmp *argument)
{
	int number = seccomp_syscall_resolve_name(name);

	/* Not on this architecture, or younger than libseccomp. */
	if (number < 0)
		return 0;
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, argument ? 1 : 0, argument);
}

static int allow_all(scmp_filter_ctx filter, const char *const *list)
{
	int r = 0;

	for (; !r && *list; list++)
		r = allow(filter, *list, NULL);
	return r;
}

static int allow_choices(scmp_filter_ctx filter)
{
	int r = 0;

	for (size_t i = 0; !r && i < sizeof(choices) / sizeof(*choices); i++) {
		const struct choice *choice = &choices[i];
		/* The kernel takes 32 bits of these, and ignores what is above. */
		struct scmp_arg_cmp is = { choice->argument, SCMP_CMP_MASKED_EQ, UINT32_MAX,
					   choice->value };

		r = allow(filter, choice->call, &is);
	}
	return r;
}

static int fill(scmp_filter_ctx filter, bool plugins)
{
	int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);

	/* An old kernel has no such log. */
	if (r == -EOPNOTSUPP)
		r = 0;
	if (!r)
		r = allow_all(filter, calls);
	if (!r && plugins)
		r = allow_all(filter, calls_of_plugins);
	else if (!r)
		r = allow_choices(filter);
	return r;
}

int syscall_filter_load(bool plugins, struct error *err)
{
	scmp_filter_ctx filter;
	int r = -ENOMEM;

	names_fill();
	filter = seccomp_init(refusal());
	if (filter) {
		r = fill(filter, plugins);
		if (!r)
			r = seccomp_load(filter);
		seccomp_release(filter);
	}
	if (r)
		return error_set(err, -r, "the filter of system calls cannot be installed: %s",
				 strerror(-r));
	return 0;
}
