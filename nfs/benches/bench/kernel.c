/*
 * The ways through the kernel: the same small function as in ideas/bypass.rs over packet sockets,
 * and the sources that feed them and the kernel's own forwarding.
 *
 *   kernel source IF                        sends UDP frames of 64 bytes for ever
 *   kernel turns IF FLOWS                   the same of so many flows, a power of two, and lets others
 *                                           of its priority run after as many as a veth's ring holds
 *   kernel one IN OUT                       a system call for each packet received and sent
 *   kernel batch IN OUT                     recvmmsg and sendmmsg of up to 32
 *
 * `one` and `batch` answer each line on standard input, a number of milliseconds, by a line
 * "packets cpu_ns wall_ns" of the time since then.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, ROOM = 2048, FRAME = 64, FLOWS = 1024, RING = 256 };

static unsigned char frames[BATCH][ROOM];
static uint64_t seen[65536];

static int die(const char *what)
{
	fprintf(stderr, "kernel: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_on(const char *interface, uint16_t protocol)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(protocol) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	int ignore_own = 1, size = 8 << 20;

	address.sll_ifindex = (int)if_nametoindex(interface);
	if (fd < 0 || address.sll_ifindex == 0)
		die(interface);
	setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore_own, sizeof(ignore_own));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		die("bind");
	return fd;
}

/* Counts UDP by its destination port and sends the frame back to where it came from. */
static void handle(unsigned char *frame, size_t length)
{
	unsigned char other[6];

	if (length >= 42 && frame[12] == 8 && frame[13] == 0 && frame[23] == 17)
		seen[frame[36] << 8 | frame[37]]++;
	memcpy(other, frame, 6);
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, other, 6);
}

static uint64_t now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static unsigned one(int in, int out)
{
	ssize_t length = recv(in, frames[0], ROOM, 0);

	if (length <= 0)
		return 0;
	handle(frames[0], (size_t)length);
	send(out, frames[0], (size_t)length, 0);
	return 1;
}

static unsigned batch(int in, int out)
{
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];
	int count;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ frames[i], ROOM };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	count = recvmmsg(in, messages, BATCH, MSG_WAITFORONE, NULL);
	for (int i = 0; i < count; i++) {
		handle(frames[i], messages[i].msg_len);
		parts[i].iov_len = messages[i].msg_len;
	}
	if (count > 0)
		sendmmsg(out, messages, (unsigned)count, 0);
	return count > 0 ? (unsigned)count : 0;
}

static void source(const char *interface, unsigned flows, bool turns)
{
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];
	int out = open_on(interface, 0);
	unsigned flow = 0, sent = 0;

	for (int i = 0; i < BATCH; i++) {
		static const unsigned char head[42] = {
			2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0,
			0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0xae, 0xb9, 10, 0, 0, 1, 192, 0, 2, 1,
			0, 0, 0, 53, 0, 30, 0, 0,
		};
		memcpy(frames[i], head, sizeof(head));
		parts[i] = (struct iovec){ frames[i], FRAME };
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			/* Each once, in no order that helps a table. */
			unsigned port = 1024 + (flow++ * 40503u & (flows - 1));

			frames[i][34] = (unsigned char)(port >> 8);
			frames[i][35] = (unsigned char)port;
		}
		sendmmsg(out, messages, BATCH, 0);
		sent += BATCH;
		if (turns && sent % RING == 0)
			sched_yield();
	}
}

int main(int argc, char **argv)
{
	bool whole = argc == 4 && strcmp(argv[1], "batch") == 0;
	struct timeval patience = { .tv_usec = 100000 };
	char line[32];
	int in, out;

	if (argc == 3 && strcmp(argv[1], "source") == 0)
		source(argv[2], FLOWS, false);
	if (argc == 4 && strcmp(argv[1], "turns") == 0)
		source(argv[2], (unsigned)atoi(argv[3]), true);
	if (argc != 4)
		return 2;
	in = open_on(argv[2], ETH_P_ALL);
	out = open_on(argv[3], 0);
	setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while (fgets(line, sizeof(line), stdin) != NULL) {
		uint64_t wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID), packets = 0, end;

		end = wall + strtoull(line, NULL, 10) * 1000000u;
		while (now(CLOCK_MONOTONIC) < end) {
			/* The clock is read once in 64 packets or more, as it costs something. */
			for (unsigned done = 0, some; done < 64; done += some) {
				some = whole ? batch(in, out) : one(in, out);
				packets += some;
				if (some == 0)
					break;
			}
		}
		printf("%llu %llu %llu\n", (unsigned long long)packets,
		       (unsigned long long)(now(CLOCK_THREAD_CPUTIME_ID) - cpu),
		       (unsigned long long)(now(CLOCK_MONOTONIC) - wall));
		fflush(stdout);
	}
	return 0;
}
