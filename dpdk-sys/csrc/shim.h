/*
 * What Rust cannot reach in DPDK, as plain functions over plain structures.
 *
 * DPDK keeps its packet path in `static inline` functions and in thread-local
 * variables, neither of which a shared library exports, and it changes the
 * shape of some structures from version to version. The functions here are
 * compiled with the headers that are installed, take a burst at a time where
 * packets are concerned, and fill structures of our own whose shape is fixed.
 * They decide nothing.
 */
#ifndef DPDK_SYS_SHIM_H
#define DPDK_SYS_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;
struct rte_ring;
struct rte_tel_data;

/* --- EAL ---------------------------------------------------------------- */

/*
 * rte_eal_init with stdout and stderr put aside: on a bad argument it would print
 * pages of its own usage, ahead of the program's one sentence. What it said is in
 * `said`, cut to `room` bytes and NUL-terminated. With `room` 0 it prints as it
 * likes, which is what --help is for.
 */
int shim_eal_init(int argc, char **argv, char *said, size_t room);

/* rte_errno of the calling thread (thread-local in DPDK). */
int shim_errno(void);

/* EAL lcore id of the calling thread, LCORE_ID_ANY on an ordinary thread. */
uint32_t shim_lcore_id(void);

/* Whether an lcore, by its id below RTE_MAX_LCORE, may run on a CPU. */
bool shim_lcore_has_cpu(uint32_t lcore, uint32_t cpu);

/*
 * Sends each line that DPDK logs to `sink` (text without its newline, length,
 * RTE_LOG_* level) in place of stderr. Returns 0, or -1 with errno set.
 */
typedef void (*shim_log_sink)(const char *line, size_t length, uint32_t level);
int shim_log_to(shim_log_sink sink);

/* Whether a device of this name is on some bus and has a driver at work. */
bool shim_device_is_probed(const char *name);

/* --- mbufs and pools ---------------------------------------------------- */

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool);

/* 0 when all `n` were allocated, or a negative errno and none. */
int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t n);

/* Frees a packet with all its segments, however it is made up. */
void shim_mbuf_free(struct rte_mbuf *mbuf);

/*
 * Gives mbufs straight back to their pool. Each of them must be of `pool`,
 * direct, of one segment, with `next` null and a reference count of 1.
 */
void shim_mbuf_raw_free_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t n);

/* --- ports -------------------------------------------------------------- */

/* What a device says of itself (from struct rte_eth_dev_info). */
struct shim_port_info {
	const char *driver;          /* driver's name, static storage */
	int32_t socket;              /* NUMA node, -1 if unknown */
	uint32_t interface_index;    /* kernel interface, 0 if none */
	uint16_t min_mtu;            /* bytes */
	uint16_t max_mtu;            /* bytes */
	uint32_t min_rx_buffer_size; /* bytes */
	uint32_t max_rx_packet_length;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t rx_queues;          /* configured now */
	uint16_t tx_queues;          /* configured now */
	uint16_t max_rx_descriptors;
	uint16_t min_rx_descriptors;
	uint16_t max_tx_descriptors;
	uint16_t min_tx_descriptors;
	uint16_t rx_descriptors_align; /* a count is a multiple of it */
	uint16_t tx_descriptors_align;
	bool link_interrupt;         /* it can tell when its link changes */
	bool removal_interrupt;      /* it can tell when it is taken away */
	uint64_t rx_offloads;        /* RTE_ETH_RX_OFFLOAD_* it can do */
	uint64_t tx_offloads;        /* RTE_ETH_TX_OFFLOAD_* it can do */
	uint64_t rss_functions;      /* RTE_ETH_RSS_* it can do */
	uint16_t rss_table_size;     /* redirection table entries */
	uint8_t rss_key_size;        /* bytes, 0 if it takes no key */
};
int shim_port_info(uint16_t port, struct shim_port_info *info);

/* What we ask of a device (into struct rte_eth_conf). */
struct shim_port_config {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t mtu;           /* bytes, 0 leaves the device's default */
	uint64_t rx_offloads;
	uint64_t tx_offloads;
	uint64_t rss_functions; /* 0 switches RSS off */
	uint8_t *rss_key;       /* NULL leaves the device's default */
	uint8_t rss_key_size;
	bool link_interrupt;
	bool removal_interrupt;
	bool rx_interrupts;     /* of each receive queue, to be enabled when wanted */
};
int shim_port_configure(uint16_t port, const struct shim_port_config *config);

int shim_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			uint64_t offloads, struct rte_mempool *pool);
int shim_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			uint64_t offloads);

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);

struct shim_link {
	uint32_t speed;      /* Mbit/s, RTE_ETH_SPEED_NUM_* for none and unknown */
	bool up;
	bool full_duplex;
	bool autonegotiated;
};
int shim_link(uint16_t port, struct shim_link *link);

struct shim_port_stats {
	uint64_t rx_packets, tx_packets;
	uint64_t rx_bytes, tx_bytes;
	uint64_t rx_missed;    /* dropped by the device: its queue was full */
	uint64_t rx_errors, tx_errors;
	uint64_t rx_no_mbuf;   /* dropped by the driver: the pool was empty */
};
int shim_port_stats(uint16_t port, struct shim_port_stats *stats);

/* MAC address of the port, six bytes. */
int shim_port_mac_address(uint16_t port, uint8_t *address);
int shim_port_set_mac_address(uint16_t port, const uint8_t *address);

/*
 * Sets the RSS functions (RTE_ETH_RSS_*) and the key of a port, or reads them. The device's
 * own key size must be given; some drivers copy what they have whatever it is, so `key`
 * has room for SHIM_RSS_KEY_ROOM bytes.
 */
#define SHIM_RSS_KEY_ROOM 256
int shim_rss_hash_set(uint16_t port, uint64_t functions, uint8_t *key, uint8_t key_size);
int shim_rss_hash(uint16_t port, uint64_t *functions, uint8_t *key, uint8_t key_size);

/*
 * Sets or reads the whole RSS redirection table, a queue for each entry; -EINVAL beyond
 * SHIM_RSS_TABLE_MAX entries.
 */
#define SHIM_RSS_TABLE_MAX 4096
int shim_rss_table_set(uint16_t port, const uint16_t *queues, uint16_t entries);
int shim_rss_table(uint16_t port, uint16_t *queues, uint16_t entries);

/*
 * Has `event` called, on DPDK's interrupt thread, when a device's link changes, when it asks to be
 * reset, and when it is taken away. Doing so again for the same port changes nothing.
 */
enum shim_event { SHIM_EVENT_LINK = 1, SHIM_EVENT_RESET = 2, SHIM_EVENT_REMOVED = 4 };
typedef void (*shim_event_sink)(uint16_t port, uint32_t event);
int shim_port_watch(uint16_t port, shim_event_sink sink);

/* A device as its bus knows it, to be found again by. */
struct shim_device {
	char bus[32];
	char name[64];
	char arguments[256];
	char port[64]; /* the port's own name */
};
/* -ENAMETOOLONG if it does not fit. */
int shim_port_device(uint16_t port, struct shim_device *device);
/* Takes the port's device away from DPDK, with its port, which is stopped. -EBUSY if it has others. */
int shim_device_remove(uint16_t port);
/* Brings it back, and says which port it is now. */
int shim_device_add(const struct shim_device *device, uint16_t *port);

/* The lowest port id that is at least `from`, RTE_MAX_ETHPORTS if none. */
uint16_t shim_next_port(uint16_t from);

/* --- rings -------------------------------------------------------------- */

/* Single producer, single consumer; each returns how many went through. */
uint32_t shim_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs, uint32_t n);
uint32_t shim_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs, uint32_t n);

/* --- telemetry ---------------------------------------------------------- */

/* Numbers in a dictionary: what puts them there got another name and another type with 23.03. */
int shim_telemetry_unsigned(struct rte_tel_data *dictionary, const char *name, uint64_t value);
int shim_telemetry_signed(struct rte_tel_data *dictionary, const char *name, int32_t value);

#endif
