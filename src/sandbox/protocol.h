/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a runner and its spawner (kiln-sandbox serve) say to each other.
 *
 * SOCK_SEQPACKET, one fixed-size struct per message, descriptors by SCM_RIGHTS; native byte order,
 * since both ends are one build on one machine (the version is checked all the same). Requests have
 * even numbers, replies and events odd ones. Text and user data never travel here: they are in
 * memfds that the spawner passes on unread.
 *
 * A box is one sandbox; the runner chooses its index (0 .. boxes - 1) and a cookie, any number that
 * tells this use of the box from the one before. The life of a box:
 *
 *	EMPTY -PREPARE-> PREPARING =PREPARED=> READY -START-> RUNNING =EXITED=> DYING
 *	 =RELEASED=> EMPTY
 *
 * EXITED comes as soon as the result is known, RELEASED follows by itself when nothing is left (no
 * process, mount, cgroup): only then may the index be prepared again. RELEASE gives back a box that
 * was not started; it is also allowed, and means KILL, while it runs. A box that fails by itself
 * before it was started says EXITED with SANDBOX_FAILED, then RELEASED. So every PREPARE is
 * answered by exactly one RELEASED, and every START by exactly one EXITED before it. Requests that
 * crossed such an event on the wire are ignored (see the table). What the table forbids is answered
 * with SANDBOX_REPLY_ERROR and changes nothing. End of file on the socket: everything is killed and
 * removed, and the spawner ends.
 */

#include <stddef.h>
#include <stdint.h>

#define SANDBOX_PROTOCOL_VERSION 2u
#define SANDBOX_MAGIC		 0x4b4cu /* "KL" */

enum {
	SANDBOX_BOXES_MAX = 32,
	SANDBOX_MAP_MAX = 16,	    /* descriptors given to the task, standard streams included */
	SANDBOX_TARGET_FD_MAX = 64, /* their numbers inside are below this */
	SANDBOX_INPUTS_MAX = 4, /* archives unpacked into the work directory, besides the job's */
	SANDBOX_FDS_MAX = 2 + SANDBOX_INPUTS_MAX + SANDBOX_MAP_MAX,
	SANDBOX_PATH_MAX = 248,
	SANDBOX_BINDS_MAX = 128,
	SANDBOX_FILTER_MAX = 4096, /* seccomp instructions */
	SANDBOX_CONTROL_FD = 3,	   /* where `kiln-sandbox serve` expects its socket */
	SANDBOX_GROUP_MAX = 80,
	SANDBOX_UID_MIN = 1000, /* below are ids that hosts have users for */
};

#define SANDBOX_GROUP_PREFIX "kiln-sandbox."
#define SANDBOX_WORK_DIR     "/box" /* working directory, HOME; writable, executable, counted */

enum sandbox_message_type {
	SANDBOX_CONFIGURE =
		2, /* once, first; fds: profile, [seccomp program] (sealed memfds), and by
		    * tree the directory of the spawner's group and the one it is in */
	SANDBOX_PREPARE = 4,
	SANDBOX_START = 6, /* fds: job, [output], inputs..., map... in this order */
	SANDBOX_KILL = 8,
	SANDBOX_RELEASE = 10,
	SANDBOX_LIMIT = 12, /* new limits for one that runs; clocks restart */
	SANDBOX_REPLY_CONFIGURED = 3,
	SANDBOX_EVENT_PREPARED = 5,
	SANDBOX_EVENT_STARTED = 7, /* handed over, or LIMIT in force; no execve: see EXITED */
	SANDBOX_EVENT_EXITED = 9,
	SANDBOX_EVENT_RELEASED = 11,
	SANDBOX_REPLY_ERROR = 13, /* the request was refused and nothing was changed */
};

enum sandbox_rung {
	SANDBOX_RUNG_AUTO = 0, /* the highest that works */
	SANDBOX_RUNG_CGROUP2,
	SANDBOX_RUNG_CGROUP1,
	SANDBOX_RUNG_RLIMIT,
	_SANDBOX_RUNG_MAX,
};

enum sandbox_tree {
	SANDBOX_TREE_V2,
	SANDBOX_TREE_MEMORY,
	SANDBOX_TREE_PIDS,
	SANDBOX_TREE_CPUACCT,
	_SANDBOX_TREE_MAX,
};

/* Of one task. Zero means: for cpu, wall, memory and processes not allowed (EINVAL); for the others
 * the default named. */
struct sandbox_limits {
	uint64_t cpu_usec;
	uint64_t wall_usec;
	uint64_t memory_bytes;
	uint64_t disk_bytes; /* /box, /tmp, /dev/shm together; 64 MiB, at most memory_bytes */
	uint64_t reserved0;
	uint64_t file_bytes;	    /* RLIMIT_FSIZE; disk_bytes */
	uint64_t stack_bytes;	    /* RLIMIT_STACK; 8 MiB, above the hard limit it is clipped */
	uint64_t collect_bytes;	    /* all collected files together; 64 MiB */
	uint64_t cpuset[4];	    /* CPU numbers as bits, CPU 0 lowest; all zero: any */
	uint32_t processes;	    /* processes and threads together, the main one included */
	uint32_t inodes;	    /* files in all of these; 4096 */
	uint32_t open_files;	    /* RLIMIT_NOFILE; 256 */
	uint32_t collect_files;	    /* 256 */
	uint32_t cpu_rate_permille; /* 1000 = one CPU; 0 = no limit; SANDBOX_HAS_CPU_RATE */
	uint32_t waits; /* not 0: nobody's code runs before LIMIT, and only CPU time is bounded */
};

struct sandbox_header {
	uint16_t magic;
	uint16_t version;
	uint16_t type;
	uint16_t box; /* 0 where there is none */
	uint64_t cookie;
};

enum {
	SANDBOX_CONFIGURE_NO_NETPOOL = 1 << 0, /* a fresh network namespace for each box */
	SANDBOX_CONFIGURE_FILTER = 1 << 1,
	SANDBOX_CONFIGURE_POD = 1 << 2, /* no namespaces: one box at a time (pod.h) */
};

/* All decided: the spawner looks for nothing (host.h). */
struct sandbox_configure {
	struct sandbox_header h;
	uint32_t boxes;
	uint32_t uid_base; /* host ids uid_base + 2 * box (init) and + 1 (task); 0: one for all */
	uint32_t rung;	   /* not AUTO */
	uint32_t flags;
	uint32_t trees;		       /* bits by enum sandbox_tree */
	uint32_t has;		       /* SANDBOX_HAS_ of limits */
	char group[SANDBOX_GROUP_MAX]; /* name of the spawner's own, in each tree */
};

struct sandbox_prepare {
	struct sandbox_header h;
	struct sandbox_limits limits; /* expected; START with other ones costs a little more */
};

enum { SANDBOX_START_OUTPUT = 1 << 0 /* fds has an output memfd: collect after exit code 0 */ };

struct sandbox_start {
	struct sandbox_header h;
	struct sandbox_limits limits;
	uint32_t flags;
	uint8_t inputs;			 /* 0 .. SANDBOX_INPUTS_MAX */
	uint8_t mapped;			 /* 0 .. SANDBOX_MAP_MAX */
	uint8_t target[SANDBOX_MAP_MAX]; /* number inside; 0, 1, 2 not named are /dev/null */
	uint8_t reserved[2];
};

/* KILL, RELEASE. */
struct sandbox_simple {
	struct sandbox_header h;
	uint32_t reason; /* enum sandbox_limit, for KILL: comes back in EXITED */
	uint32_t reserved;
};

enum sandbox_limit {
	SANDBOX_LIMIT_NONE = 0,
	SANDBOX_LIMIT_CPU,
	SANDBOX_LIMIT_WALL,
	SANDBOX_LIMIT_MEMORY,
	SANDBOX_LIMIT_OUTPUT,	 /* by KILL: the runner counts output */
	SANDBOX_LIMIT_REQUESTED, /* by KILL or RELEASE: cancelled */
	_SANDBOX_LIMIT_MAX,
};

enum sandbox_outcome {
	SANDBOX_EXITED = 1,	/* code */
	SANDBOX_SIGNALLED,	/* signal */
	SANDBOX_LIMITED,	/* limit; by the spawner, the kernel or the runner */
	SANDBOX_NOT_EXECUTABLE, /* the program could not be executed: error (ENOENT, EACCES, ...) */
	SANDBOX_FAILED,		/* the sandbox itself failed: step, error. Never the task's fault */
	_SANDBOX_OUTCOME_MAX,
};

/* Where a sandbox failed; sandbox_step_name() has the words. */
enum sandbox_step {
	SANDBOX_STEP_NONE = 0,
	SANDBOX_STEP_CGROUP,
	SANDBOX_STEP_NETNS,
	SANDBOX_STEP_CLONE,
	SANDBOX_STEP_ID_MAP,
	SANDBOX_STEP_IDENTITY,
	SANDBOX_STEP_ROOT,
	SANDBOX_STEP_TMPFS,
	SANDBOX_STEP_PROC,
	SANDBOX_STEP_HOSTNAME,
	SANDBOX_STEP_CAPABILITIES,
	SANDBOX_STEP_LANDLOCK,
	SANDBOX_STEP_SECCOMP,
	SANDBOX_STEP_FORK,
	SANDBOX_STEP_MESSAGE,
	SANDBOX_STEP_LIMITS,
	SANDBOX_STEP_DESCRIPTORS,
	SANDBOX_STEP_JOB,   /* the job memfd: not sealed, too big or malformed */
	SANDBOX_STEP_FILES, /* unpacking; ENOSPC here means the files do not fit the disk limit */
	SANDBOX_STEP_EXEC,
	SANDBOX_STEP_COLLECT,	/* files out: the machine's fault, collect_error has the task's */
	SANDBOX_STEP_INIT_DIED, /* pid 1 ended without a word and without a limit */
	_SANDBOX_STEP_MAX,
};

struct sandbox_event_prepared {
	struct sandbox_header h;
	uint64_t prepare_usec;
	uint32_t init_pid; /* on the host, for diagnosis */
	uint32_t reserved;
};

struct sandbox_event_started {
	struct sandbox_header h;
	uint64_t started_nsec; /* CLOCK_MONOTONIC, where the wall clock of the task began */
};

/* On the wire `limit` is why the spawner killed; the client decides the first four (verdict.h). */
struct sandbox_event_exited {
	struct sandbox_header h;
	uint32_t outcome; /* enum sandbox_outcome */
	uint32_t limit;	  /* enum sandbox_limit */
	int32_t code;	  /* exit code, -1 if there is none */
	int32_t signal;	  /* 0 if there is none */
	uint32_t step;	  /* enum sandbox_step */
	int32_t error;	  /* errno, positive */
	uint64_t cpu_usec;
	uint64_t wall_usec;
	int64_t memory_peak_bytes; /* -1: this rung cannot know it */
	uint64_t oom_kills;
	uint32_t collected_files;
	int32_t collect_error; /* errno: EFBIG, EDQUOT (too many files) ...; 0 = complete */
	uint64_t collected_bytes;
	uint32_t has_status;			  /* the main process ended, and init said how */
	int32_t status;				  /* wait status */
	uint64_t cpu_limit_usec, wall_limit_usec; /* that were in force at the end */
};

/* Flags of what is in force. */
enum {
	SANDBOX_HAS_USERNS = 1 << 0, /* and pid mnt ipc uts cgroup; absent in a pod's boxes */
	SANDBOX_HAS_NETNS = 1 << 1,
	SANDBOX_HAS_NETPOOL = 1 << 2,
	SANDBOX_HAS_SECCOMP = 1 << 3,
	SANDBOX_HAS_TWO_IDS = 1 << 4, /* init and task have different host ids */
	SANDBOX_HAS_SWAP_LIMIT = 1 << 5,
	SANDBOX_HAS_CPU_RATE = 1 << 6,
	SANDBOX_HAS_MEMORY_PEAK = 1 << 7,
	SANDBOX_HAS_PROC = 1 << 8, /* the box has its own /proc */
	SANDBOX_HAS_CGROUP_KILL = 1 << 9,
	SANDBOX_HAS_ROOT = 1 << 10,  /* the spawner was started as root */
	SANDBOX_HAS_SCOPE = 1 << 11, /* pod: signals of the task stay in its box */
};

struct sandbox_reply_configured {
	struct sandbox_header h;
	uint32_t rung;
	uint32_t has;		       /* SANDBOX_HAS_ flags */
	uint32_t landlock_abi;	       /* 0 = none */
	uint32_t uid_base;	       /* of box 0; the task's own id where there is only one */
	uint32_t filter_len;	       /* seccomp instructions */
	uint32_t binds;		       /* profile entries that existed on this host */
	uint64_t capabilities;	       /* what the spawner kept */
	char cgroup[SANDBOX_PATH_MAX]; /* the one that was nested under: from the client */
};

struct sandbox_reply_error {
	struct sandbox_header h;
	uint32_t request; /* type that was refused */
	int32_t error;	  /* errno, positive */
	char message[SANDBOX_PATH_MAX];
};

union sandbox_request {
	struct sandbox_header h;
	struct sandbox_configure configure;
	struct sandbox_prepare prepare; /* also LIMIT */
	struct sandbox_start start;
	struct sandbox_simple simple;
};

union sandbox_event {
	struct sandbox_header h;
	struct sandbox_reply_configured configured;
	struct sandbox_event_prepared prepared;
	struct sandbox_event_started started;
	struct sandbox_event_exited exited;
	struct sandbox_header released;
	struct sandbox_reply_error error;
};

/* One entry of the profile memfd: nothing but an array of these. */
enum {
	SANDBOX_BIND_OPTIONAL = 1 << 0, /* left out where the host does not have it */
	SANDBOX_BIND_SYMLINK = 1 << 1,	/* target becomes a symbolic link with the text source */
	SANDBOX_BIND_FOLDER = 1 << 2,	/* set by the client, like the two others on the wire */
};
struct sandbox_bind {
	uint32_t flags;
	uint32_t reserved[3];
	char source[SANDBOX_PATH_MAX]; /* absolute; a symbolic link on the host stays one inside */
	char target[SANDBOX_PATH_MAX]; /* absolute, without "." or ".."; "" = same as source */
};

enum sandbox_box_state {
	SANDBOX_BOX_EMPTY = 0,
	SANDBOX_BOX_PREPARING,
	SANDBOX_BOX_READY,
	SANDBOX_BOX_RUNNING,
	SANDBOX_BOX_COLLECTING,
	SANDBOX_BOX_DYING,
	_SANDBOX_BOX_STATE_MAX,
};

enum sandbox_permit {
	SANDBOX_FORBIDDEN = 0,
	SANDBOX_ALLOWED,
	SANDBOX_CROSSED, /* was right when it was sent: dropped without an answer */
};

/* What a request may do in a state of its box. Pure; unknown numbers are forbidden. */
enum sandbox_permit sandbox_permit(unsigned int type, unsigned int state);
/* Checks size, magic, version, type, box and descriptor count of a request. 0 or -EBADMSG. */
int sandbox_request_check(const void *buf, size_t len, size_t fds, unsigned int boxes);
/* 0, or -EINVAL where a limit is missing or absurd; fills in the defaults. */
int sandbox_limits_check(struct sandbox_limits *limits);
