/* What bindgen reads: the shim, the DPDK headers it stands on, and facts that only C knows. */
#include "shim.h"

#include <pcap/pcap.h>
#include <rte_acl.h>
#include <rte_config.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pdump.h>
#include <rte_ring.h>
#include <rte_telemetry.h>
#include <rte_version.h>

/*
 * Offsets by C's own reckoning. The members of rte_mbuf moved into anonymous
 * unions in 24.11 without moving in memory, so the Rust side keeps one view of
 * the 128 bytes and asserts it against these.
 */
#define MBUF_OFFSET(field) DPDK_MBUF_OFFSET_##field = offsetof(struct rte_mbuf, field)
enum dpdk_mbuf_offset {
	MBUF_OFFSET(buf_addr),
	MBUF_OFFSET(data_off),
	MBUF_OFFSET(refcnt),
	MBUF_OFFSET(nb_segs),
	MBUF_OFFSET(port),
	MBUF_OFFSET(ol_flags),
	MBUF_OFFSET(packet_type),
	MBUF_OFFSET(pkt_len),
	MBUF_OFFSET(data_len),
	MBUF_OFFSET(vlan_tci),
	DPDK_MBUF_OFFSET_hash_rss = offsetof(struct rte_mbuf, hash.rss),
	MBUF_OFFSET(buf_len),
	MBUF_OFFSET(pool),
	MBUF_OFFSET(next),
	MBUF_OFFSET(tx_offload),
	MBUF_OFFSET(shinfo),
	DPDK_MBUF_SIZE = sizeof(struct rte_mbuf),
	DPDK_MBUF_ALIGN = _Alignof(struct rte_mbuf),
};

/* Sizes that go through sizeof, which bindgen does not evaluate in a macro. */
enum dpdk_size {
	DPDK_MEMPOOL_NAME_SIZE = RTE_MEMPOOL_NAMESIZE,
	DPDK_RING_NAME_SIZE = RTE_RING_NAMESIZE,
	DPDK_HASH_NAME_SIZE = RTE_HASH_NAMESIZE,
	DPDK_ACL_NAME_SIZE = RTE_ACL_NAMESIZE,
};

/* Constants of nameless enumerations. */
enum dpdk_acl {
	DPDK_ACL_FIELD_MASK = RTE_ACL_FIELD_TYPE_MASK,
	DPDK_ACL_FIELD_RANGE = RTE_ACL_FIELD_TYPE_RANGE,
	DPDK_ACL_FIELD_BITMASK = RTE_ACL_FIELD_TYPE_BITMASK,
	DPDK_ACL_MAX_PRIORITY = RTE_ACL_MAX_PRIORITY,
};
