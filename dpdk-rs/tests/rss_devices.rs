//! Key, table and hash on devices of software.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::Random;
use dpdk_rs::{
    Burst, Eal, Mempool, Port, PortBuilder, PortId, QueuePair, RssError, RssField, RssFunctions, RssKey, RssProblem,
    RssTable, RssTableSize, Version,
};
use dpdk_sys as sys;
use std::num::NonZero;

#[test]
fn rss_of_devices() {
    let member = if (Version::HEADERS.year, Version::HEADERS.month) < (23, 11) { "slave" } else { "member" };
    let bond = format!("net_bonding0,mode=2,{member}=net_null1");
    let eal = common::eal(&["net_null0", "net_ring0", "net_null1", &bond]);
    common::run(
        &eal,
        &[
            ("a device that takes no key is refused, whatever else it offers", a_device_without_a_key_is_refused),
            ("a port with one queue has nothing to choose from", a_port_with_one_queue_has_nothing_to_choose_from),
            ("a table names queues that there are", a_table_names_queues_that_there_are),
            ("a device that keeps key and table is believed", a_device_that_keeps_key_and_table_is_believed),
            ("the hash of a packet is what the device flags", the_hash_of_a_packet_is_what_the_device_flags),
        ],
    );
}

fn start(eal: &Eal, name: &str, pool: &Mempool, queues: u16) -> (Port, Vec<QueuePair>) {
    let port = eal.port_by_name(name).unwrap();
    PortBuilder::new(eal, port).pool(pool).queues(queues).start().unwrap()
}

fn table(entries: u16, queues: u16) -> RssTable {
    RssTable::balanced(RssTableSize::new(entries).unwrap(), NonZero::new(queues).unwrap(), 1)
}

/// What comes of asking a started port to choose queues by the source address.
fn ask(port: &Port, table: &RssTable) -> Result<(), RssError> {
    port.set_rss(&RssKey::of_field(RssField::SourceAddress, table.size(), 1), table, RssFunctions::FLOWS)
}

fn a_device_without_a_key_is_refused(eal: &Eal) {
    let pool = common::pool(eal, "no key");
    for name in ["net_ring0", "net_null0"] {
        let (port, queues) = start(eal, name, &pool, 2);
        let outcome = ask(&port, &table(128, 2));
        if port.info().unwrap().rss_key_size == 0 {
            let error = outcome.unwrap_err();
            assert_eq!((error.port.as_str(), error.driver.as_str()), (name, name.trim_end_matches('0')));
            assert_eq!(error.problem, RssProblem::KeySize { have: 0, need: 40 });
        } else {
            // net_null keeps what it is given and follows nothing. In 22.11 it says that it takes no
            // key, in 24.11 that it takes one; then only packets can show what it does.
            assert_eq!((name, outcome), ("net_null0", Ok(())));
        }
        port.stop(queues).unwrap();
    }
}

fn a_port_with_one_queue_has_nothing_to_choose_from(eal: &Eal) {
    let pool = common::pool(eal, "one queue");
    let (port, queues) = start(eal, "net_null0", &pool, 1);
    assert_eq!(ask(&port, &table(128, 1)).unwrap_err().problem, RssProblem::OneQueue);
    port.stop(queues).unwrap();
}

fn a_table_names_queues_that_there_are(eal: &Eal) {
    let pool = common::pool(eal, "queues");
    let (port, queues) = start(eal, "net_null0", &pool, 2);
    assert_eq!(
        ask(&port, &table(128, 4)).unwrap_err().to_string(),
        "port net_null0 (net_null) was started with 2 queues, the RSS table names queue 3"
    );
    port.stop(queues).unwrap();
}

fn a_device_that_keeps_key_and_table_is_believed(eal: &Eal) {
    let pool = common::pool(eal, "bond");
    // The bond takes its member's key size, which is none, until it is configured again.
    let (port, queues) = start(eal, "net_bonding0", &pool, 3);
    port.stop(queues).unwrap();
    let (port, queues) = start(eal, "net_bonding0", &pool, 3);
    let info = port.info().unwrap();
    assert_eq!((info.rss_key_size, info.rss_table_size), (40, 128), "{info:?}");
    for (entries, queues) in [(128, 3), (128, 2), (64, 3), (2, 2)] {
        ask(&port, &table(entries, queues)).unwrap();
        assert_eq!(table_of(port.id()), table(128.min(entries), queues).repeat_to(table(128, 1).size()).unwrap());
        let size = RssTableSize::new(entries).unwrap();
        assert_eq!(key_of(port.id()), *RssKey::of_field(RssField::SourceAddress, size, 1).bytes());
    }
    let larger = ask(&port, &table(256, 3)).unwrap_err();
    assert_eq!(larger.problem, RssProblem::TableSize { have: 128, need: 256 });
    let key = RssKey::symmetric();
    let functions = RssFunctions::FLOWS | RssFunctions(sys::RTE_ETH_RSS_L2_PAYLOAD | 1 << 47);
    let lacking = port.set_rss(&key, &table(128, 3), functions).unwrap_err();
    assert!(matches!(lacking.problem, RssProblem::Functions { missing, .. } if missing.0 & 1 << 47 != 0), "{lacking}");
    port.stop(queues).unwrap();
}

/// The key that a device has, by DPDK's own words.
fn key_of(port: PortId) -> [u8; 40] {
    let (mut key, mut functions) = ([0; sys::SHIM_RSS_KEY_ROOM as usize], 0);
    // SAFETY: the port exists; the key has the room that the shim asks for.
    assert_eq!(unsafe { sys::shim_rss_hash(port.0, &raw mut functions, key.as_mut_ptr(), 40) }, 0);
    *key.first_chunk().unwrap()
}

fn table_of(port: PortId) -> RssTable {
    let mut entries = vec![0; 128];
    // SAFETY: the port exists; there is room for 128 entries.
    assert_eq!(unsafe { sys::shim_rss_table(port.0, entries.as_mut_ptr(), 128) }, 0);
    RssTable::new(entries).unwrap()
}

fn the_hash_of_a_packet_is_what_the_device_flags(eal: &Eal) {
    let pool = common::pool(eal, "hashes");
    // SAFETY: the EAL is up, the name is NUL-terminated.
    let ring = unsafe { sys::rte_ring_create(c"hashes".as_ptr(), 64, sys::SOCKET_ID_ANY, 0) };
    assert!(!ring.is_null());
    let mut rings = [ring];
    // SAFETY: one valid ring each way; it lives as long as the process.
    let id = unsafe { sys::rte_eth_from_rings(c"hashes".as_ptr(), rings.as_mut_ptr(), 1, rings.as_mut_ptr(), 1, 0) };
    let id = PortId(u16::try_from(id).unwrap());
    // SAFETY: as above. Packets that a driver made, so the pool is made by hand too.
    let raw = unsafe { sys::rte_pktmbuf_pool_create(c"raw".as_ptr(), 63, 0, 0, 256, sys::SOCKET_ID_ANY) };
    assert!(!raw.is_null());
    let (port, mut queues) = PortBuilder::new(eal, id).pool(&pool).start().unwrap();

    let mut random = Random(1);
    let hashes: Vec<Option<u32>> =
        (0..32).map(|n| (n % 3 > 0).then(|| u32::try_from(random.below(1 << 32)).unwrap())).collect();
    for hash in &hashes {
        // SAFETY: the pool is never freed.
        let mut packet = unsafe { sys::shim_mbuf_alloc(raw) };
        assert!(!packet.is_null());
        let field = packet.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_hash_rss as usize);
        // SAFETY: a member of our packet, by C's own offset.
        unsafe { field.cast::<u32>().write(hash.unwrap_or(0xdead_beef)) };
        let flags = packet.cast::<u8>().wrapping_add(sys::DPDK_MBUF_OFFSET_ol_flags as usize);
        // SAFETY: as above.
        unsafe { flags.cast::<u64>().write(hash.map_or(0, |_| sys::RTE_MBUF_F_RX_RSS_HASH)) };
        // SAFETY: one packet, which the ring owns now; nobody else uses the ring.
        assert_eq!(unsafe { sys::shim_ring_enqueue_burst(ring, &raw mut packet, 1) }, 1);
    }
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx.receive(&mut burst), 32);
    assert!(burst.iter().map(dpdk_rs::Mbuf::rss_hash).eq(hashes));
    burst.clear();
    port.stop(queues).unwrap();
}
