/* See shim.h for what each function is for. */
#define _GNU_SOURCE /* fopencookie, memfd_create */
#define ALLOW_EXPERIMENTAL_API /* rte_dev_iterator_*, rte_dev_event_*: in every release since 18.08, never marked stable */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_telemetry.h>
#include <rte_version.h>

/* --- EAL ---------------------------------------------------------------- */

/* The program's stderr while the EAL starts with another one, else -1. */
static int real_stderr = -1;

int shim_eal_init(int argc, char **argv, char *said, size_t room)
{
	int result, error, aside, out, err;
	ssize_t length;

	if (room == 0)
		return rte_eal_init(argc, argv);
	fflush(stdout);
	fflush(stderr);
	aside = memfd_create("eal-said", MFD_CLOEXEC);
	out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	if (aside >= 0 && out >= 0)
		dup2(aside, STDOUT_FILENO);
	if (aside >= 0 && err >= 0)
		dup2(aside, STDERR_FILENO);
	real_stderr = err;

	result = rte_eal_init(argc, argv);
	error = rte_errno;

	real_stderr = -1;
	fflush(stdout);
	fflush(stderr);
	if (out >= 0) {
		dup2(out, STDOUT_FILENO);
		close(out);
	}
	if (err >= 0) {
		dup2(err, STDERR_FILENO);
		close(err);
	}
	length = aside >= 0 ? pread(aside, said, room - 1, 0) : 0;
	said[length > 0 ? length : 0] = '\0';
	if (aside >= 0)
		close(aside);
	rte_errno = error;
	return result;
}

int shim_errno(void)
{
	return rte_errno;
}

uint32_t shim_lcore_id(void)
{
	return rte_lcore_id();
}

bool shim_lcore_has_cpu(uint32_t lcore, uint32_t cpu)
{
	rte_cpuset_t cpus = rte_lcore_cpuset(lcore);

	return cpu < CPU_SETSIZE && CPU_ISSET(cpu, &cpus);
}

static ssize_t log_write(void *cookie, const char *text, size_t length)
{
	shim_log_sink sink = *(shim_log_sink *)cookie;
	int level = rte_log_cur_msg_loglevel();
	size_t start = 0;

	/* Last words of rte_panic() and rte_exit(): nobody will be there to hear more. */
	if (level == (int)RTE_LOG_CRIT && real_stderr >= 0) {
		ssize_t ignored = write(real_stderr, text, length);
		(void)ignored;
	}
	for (size_t i = 0; i <= length; i++) {
		if (i < length && text[i] != '\n')
			continue;
		if (i > start)
			sink(text + start, i - start, level < 0 ? RTE_LOG_INFO : (uint32_t)level);
		start = i + 1;
	}
	return (ssize_t)length;
}

int shim_log_to(shim_log_sink sink)
{
	static shim_log_sink the_sink; /* outlives the stream, which is never closed */
	cookie_io_functions_t io = { .write = log_write };
	FILE *stream;

	the_sink = sink;
	stream = fopencookie(&the_sink, "w", io);
	if (stream == NULL)
		return -1;
	/* rte_vlog prints a message at a time: a line buffer keeps them whole. */
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(stream);
}

bool shim_device_is_probed(const char *name)
{
	static const char *const buses[] = { "vdev", "pci", "auxiliary", "vmbus" };
	char filter[sizeof("bus=auxiliary")];
	struct rte_dev_iterator iterator;
	struct rte_device *device;
	bool found = false;

	for (size_t i = 0; i < RTE_DIM(buses); i++) {
		if (rte_bus_find_by_name(buses[i]) == NULL)
			continue; /* not linked, and the iterator would complain */
		snprintf(filter, sizeof(filter), "bus=%s", buses[i]);
		/* The walk is not left early: its end frees the iterator. */
		RTE_DEV_FOREACH(device, filter, &iterator) {
			if (strcmp(rte_dev_name(device), name) == 0 && rte_dev_is_probed(device))
				found = true;
		}
	}
	return found;
}

/* --- mbufs and pools ---------------------------------------------------- */

struct rte_mbuf *shim_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int shim_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t n)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
}

void shim_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

void shim_mbuf_raw_free_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t n)
{
	rte_mempool_put_bulk(pool, (void *const *)mbufs, n);
}

/* --- ports -------------------------------------------------------------- */

int shim_port_info(uint16_t port, struct shim_port_info *out)
{
	struct rte_eth_dev_info info;
	int result;

	memset(&info, 0, sizeof(info));
	result = rte_eth_dev_info_get(port, &info);
	if (result != 0)
		return result;
	*out = (struct shim_port_info){
		.driver = info.driver_name,
		.socket = rte_eth_dev_socket_id(port),
		.interface_index = info.if_index,
		.min_mtu = info.min_mtu,
		.max_mtu = info.max_mtu,
		.min_rx_buffer_size = info.min_rx_bufsize,
		.max_rx_packet_length = info.max_rx_pktlen,
		.max_rx_queues = info.max_rx_queues,
		.max_tx_queues = info.max_tx_queues,
		.rx_queues = info.nb_rx_queues,
		.tx_queues = info.nb_tx_queues,
		.max_rx_descriptors = info.rx_desc_lim.nb_max,
		.min_rx_descriptors = info.rx_desc_lim.nb_min,
		.max_tx_descriptors = info.tx_desc_lim.nb_max,
		.min_tx_descriptors = info.tx_desc_lim.nb_min,
		.rx_descriptors_align = info.rx_desc_lim.nb_align,
		.tx_descriptors_align = info.tx_desc_lim.nb_align,
		.link_interrupt = info.dev_flags != NULL && (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0,
		.removal_interrupt = info.dev_flags != NULL && (*info.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0,
		.rx_offloads = info.rx_offload_capa,
		.tx_offloads = info.tx_offload_capa,
		.rss_functions = info.flow_type_rss_offloads,
		.rss_table_size = info.reta_size,
		.rss_key_size = info.hash_key_size,
	};
	return 0;
}

int shim_port_configure(uint16_t port, const struct shim_port_config *config)
{
	struct rte_eth_conf conf;

	/* Zeroed as a whole: its members and its size differ between versions. */
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = config->mtu;
	conf.rxmode.offloads = config->rx_offloads;
	conf.txmode.offloads = config->tx_offloads;
	conf.intr_conf.lsc = config->link_interrupt;
	conf.intr_conf.rmv = config->removal_interrupt;
	conf.intr_conf.rxq = config->rx_interrupts;
	if (config->rss_functions != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = config->rss_functions;
		conf.rx_adv_conf.rss_conf.rss_key = config->rss_key;
		conf.rx_adv_conf.rss_conf.rss_key_len = config->rss_key_size;
	}
	return rte_eth_dev_configure(port, config->rx_queues, config->tx_queues, &conf);
}

int shim_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			uint64_t offloads, struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	struct rte_eth_rxconf conf;
	int result = rte_eth_dev_info_get(port, &info);

	if (result != 0)
		return result;
	conf = info.default_rxconf;
	conf.offloads = offloads;
	return rte_eth_rx_queue_setup(port, queue, descriptors,
				      (unsigned int)rte_eth_dev_socket_id(port), &conf, pool);
}

int shim_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, uint64_t offloads)
{
	struct rte_eth_dev_info info;
	struct rte_eth_txconf conf;
	int result = rte_eth_dev_info_get(port, &info);

	if (result != 0)
		return result;
	conf = info.default_txconf;
	conf.offloads = offloads;
	return rte_eth_tx_queue_setup(port, queue, descriptors,
				      (unsigned int)rte_eth_dev_socket_id(port), &conf);
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_prepare(port, queue, mbufs, n);
}

int shim_link(uint16_t port, struct shim_link *out)
{
	struct rte_eth_link link;
	int result;

	memset(&link, 0, sizeof(link));
	result = rte_eth_link_get_nowait(port, &link);
	if (result != 0)
		return result;
	*out = (struct shim_link){
		.speed = link.link_speed,
		.up = link.link_status == RTE_ETH_LINK_UP,
		.full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX,
		.autonegotiated = link.link_autoneg == RTE_ETH_LINK_AUTONEG,
	};
	return 0;
}

int shim_port_stats(uint16_t port, struct shim_port_stats *out)
{
	struct rte_eth_stats stats;
	int result;

	memset(&stats, 0, sizeof(stats));
	result = rte_eth_stats_get(port, &stats);
	if (result != 0)
		return result;
	*out = (struct shim_port_stats){
		.rx_packets = stats.ipackets,
		.tx_packets = stats.opackets,
		.rx_bytes = stats.ibytes,
		.tx_bytes = stats.obytes,
		.rx_missed = stats.imissed,
		.rx_errors = stats.ierrors,
		.tx_errors = stats.oerrors,
		.rx_no_mbuf = stats.rx_nombuf,
	};
	return 0;
}

int shim_port_mac_address(uint16_t port, uint8_t *address)
{
	struct rte_ether_addr mac;
	int result = rte_eth_macaddr_get(port, &mac);

	if (result == 0)
		memcpy(address, mac.addr_bytes, sizeof(mac.addr_bytes));
	return result;
}

int shim_port_set_mac_address(uint16_t port, const uint8_t *address)
{
	struct rte_ether_addr mac;

	memcpy(mac.addr_bytes, address, sizeof(mac.addr_bytes));
	return rte_eth_dev_default_mac_addr_set(port, &mac);
}

int shim_rss_hash_set(uint16_t port, uint64_t functions, uint8_t *key, uint8_t key_size)
{
	struct rte_eth_rss_conf conf;

	/* Zeroed as a whole, here and below: 23.11 added the algorithm, of which 0 is the device's own. */
	memset(&conf, 0, sizeof(conf));
	conf.rss_hf = functions;
	conf.rss_key = key;
	conf.rss_key_len = key_size;
	return rte_eth_dev_rss_hash_update(port, &conf);
}

int shim_rss_hash(uint16_t port, uint64_t *functions, uint8_t *key, uint8_t key_size)
{
	struct rte_eth_rss_conf conf;
	int result;

	memset(&conf, 0, sizeof(conf));
	conf.rss_key = key;
	conf.rss_key_len = key_size;
	result = rte_eth_dev_rss_hash_conf_get(port, &conf);
	*functions = conf.rss_hf;
	return result;
}

#define RSS_TABLE_GROUPS (SHIM_RSS_TABLE_MAX / RTE_ETH_RETA_GROUP_SIZE)

int shim_rss_table_set(uint16_t port, const uint16_t *queues, uint16_t entries)
{
	struct rte_eth_rss_reta_entry64 groups[RSS_TABLE_GROUPS];

	if (entries > SHIM_RSS_TABLE_MAX)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (uint16_t i = 0; i < entries; i++) {
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask |= RTE_BIT64(i % RTE_ETH_RETA_GROUP_SIZE);
		groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, entries);
}

int shim_rss_table(uint16_t port, uint16_t *queues, uint16_t entries)
{
	struct rte_eth_rss_reta_entry64 groups[RSS_TABLE_GROUPS];
	int result;

	if (entries > SHIM_RSS_TABLE_MAX)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (uint16_t i = 0; i < entries; i++)
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask |= RTE_BIT64(i % RTE_ETH_RETA_GROUP_SIZE);
	result = rte_eth_dev_rss_reta_query(port, groups, entries);
	for (uint16_t i = 0; i < entries; i++)
		queues[i] = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
	return result;
}

static shim_event_sink event_sink;

static int on_event(uint16_t port, enum rte_eth_event_type type, void *arg, void *ret)
{
	(void)arg;
	(void)ret;
	switch (type) {
	case RTE_ETH_EVENT_INTR_LSC:
		event_sink(port, SHIM_EVENT_LINK);
		break;
	case RTE_ETH_EVENT_INTR_RESET:
		event_sink(port, SHIM_EVENT_RESET);
		break;
	case RTE_ETH_EVENT_INTR_RMV:
		event_sink(port, SHIM_EVENT_REMOVED);
		break;
	default:
		break;
	}
	return 0;
}

/* The bus's own word, which is all that there is of a device behind vfio-pci that is unplugged. */
static void on_device_event(const char *name, enum rte_dev_event_type type, void *arg)
{
	uint16_t port;

	(void)arg;
	if (type == RTE_DEV_EVENT_REMOVE && rte_eth_dev_get_port_by_name(name, &port) == 0)
		event_sink(port, SHIM_EVENT_REMOVED);
}

int shim_port_watch(uint16_t port, shim_event_sink sink)
{
	static const enum rte_eth_event_type types[] = {
		RTE_ETH_EVENT_INTR_LSC, RTE_ETH_EVENT_INTR_RESET, RTE_ETH_EVENT_INTR_RMV
	};
	static bool devices_watched;

	event_sink = sink;
	if (!devices_watched)
		devices_watched = rte_dev_event_callback_register(NULL, on_device_event, NULL) == 0;
	for (size_t i = 0; i < RTE_DIM(types); i++) {
		int result = rte_eth_dev_callback_register(port, types[i], on_event, NULL);

		if (result != 0)
			return result;
	}
	return 0;
}

static bool copied(char *to, size_t room, const char *from)
{
	size_t length = from == NULL ? 0 : strlen(from);

	if (length >= room)
		return false;
	memcpy(to, from == NULL ? "" : from, length);
	to[length] = '\0';
	return true;
}

int shim_port_device(uint16_t port, struct shim_device *out)
{
	struct rte_eth_dev_info info;
	const struct rte_devargs *arguments;
	int result;

	memset(&info, 0, sizeof(info));
	result = rte_eth_dev_info_get(port, &info);
	if (result != 0)
		return result;
	if (info.device == NULL)
		return -ENODEV;
	arguments = rte_dev_devargs(info.device);
	if (!copied(out->bus, sizeof(out->bus), rte_bus_name(rte_dev_bus(info.device))) ||
	    !copied(out->name, sizeof(out->name), rte_dev_name(info.device)) ||
	    !copied(out->arguments, sizeof(out->arguments), arguments == NULL ? NULL : arguments->args))
		return -ENAMETOOLONG;
	_Static_assert(sizeof(out->port) >= RTE_ETH_NAME_MAX_LEN, "room for a port's name");
	return rte_eth_dev_get_name_by_port(port, out->port);
}

int shim_device_remove(uint16_t port)
{
	struct rte_eth_dev_info info;
	uint16_t sibling;
	int result;

	memset(&info, 0, sizeof(info));
	result = rte_eth_dev_info_get(port, &info);
	if (result != 0)
		return result;
	RTE_ETH_FOREACH_DEV_SIBLING(sibling, port) {
		if (sibling != port)
			return -EBUSY;
	}
	return info.device == NULL ? -ENODEV : rte_dev_remove(info.device);
}

int shim_device_add(const struct shim_device *device, uint16_t *port)
{
	int result = rte_eal_hotplug_add(device->bus, device->name, device->arguments);

	return result < 0 ? result : rte_eth_dev_get_port_by_name(device->port, port);
}

uint16_t shim_next_port(uint16_t from)
{
	return (uint16_t)rte_eth_find_next_owned_by(from, RTE_ETH_DEV_NO_OWNER);
}

/* --- rings -------------------------------------------------------------- */

uint32_t shim_ring_enqueue_burst(struct rte_ring *ring, struct rte_mbuf *const *mbufs, uint32_t n)
{
	return rte_ring_sp_enqueue_burst(ring, (void *const *)mbufs, n, NULL);
}

uint32_t shim_ring_dequeue_burst(struct rte_ring *ring, struct rte_mbuf **mbufs, uint32_t n)
{
	return rte_ring_sc_dequeue_burst(ring, (void **)mbufs, n, NULL);
}

/* --- telemetry ---------------------------------------------------------- */

int shim_telemetry_unsigned(struct rte_tel_data *dictionary, const char *name, uint64_t value)
{
#if RTE_VERSION >= RTE_VERSION_NUM(23, 3, 0, 0)
	return rte_tel_data_add_dict_uint(dictionary, name, value);
#else
	return rte_tel_data_add_dict_u64(dictionary, name, value);
#endif
}

int shim_telemetry_signed(struct rte_tel_data *dictionary, const char *name, int32_t value)
{
	return rte_tel_data_add_dict_int(dictionary, name, value);
}
