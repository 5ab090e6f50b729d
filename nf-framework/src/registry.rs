//! What functions count and fill, and by which reasons they drop.

use crate::counters::Room;
use crate::next_hop::NextHops;
use crate::verdict::DropReasons;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What functions have registered while they were set up.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) drop_reasons: DropReasons,
    pub(crate) next_hops: NextHops,
    counters: Mutex<Vec<NamedCounter>>,
    gauges: Mutex<Vec<NamedCounter>>,
    tables: Mutex<Vec<NamedTable>>,
}

/// How full a table is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TableReport {
    /// Whose; in parentheses what is no function.
    pub function: String,
    /// What it is called.
    pub table: String,
    /// The worker that has it; `None` if all share it.
    pub worker: Option<usize>,
    /// Entries in it, as of the worker's last housekeeping.
    pub entries: u64,
    /// Entries that it was made for. It may take some more before it refuses any.
    pub limit: u64,
}

/// A table that a function has on each worker.
#[derive(Debug)]
struct NamedTable {
    function: String,
    name: String,
    /// By worker. They go with the instances that fill them, so that what a reload has taken away is shown no more.
    rooms: Vec<(usize, Weak<Room>)>,
}

#[derive(Debug)]
struct NamedCounter {
    function: String,
    name: String,
    /// By worker.
    cells: Vec<(usize, Arc<AtomicU64>)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            drop_reasons: DropReasons::built_in(),
            next_hops: NextHops::default(),
            counters: Mutex::default(),
            gauges: Mutex::default(),
            tables: Mutex::default(),
        }
    }
}

impl Registry {
    /// A worker's part of a counter, which it may have been given before.
    pub(crate) fn counter(&self, function: &str, name: &str, worker: usize) -> Arc<AtomicU64> {
        cell(&self.counters, function, name, worker)
    }

    /// The same of a gauge.
    pub(crate) fn gauge(&self, function: &str, name: &str, worker: usize) -> Arc<AtomicU64> {
        cell(&self.gauges, function, name, worker)
    }

    /// Function, name and sum of each counter.
    pub(crate) fn counters(&self) -> Vec<(String, String, u64)> {
        sums(&self.counters)
    }

    /// The same of each gauge.
    pub(crate) fn gauges(&self) -> Vec<(String, String, u64)> {
        sums(&self.gauges)
    }

    pub(crate) fn room(&self, function: &str, name: &str, worker: usize) -> Arc<Room> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.iter().position(|known| known.function == function && known.name == name);
        let at = known.unwrap_or_else(|| {
            tables.push(NamedTable { function: function.to_owned(), name: name.to_owned(), rooms: Vec::new() });
            tables.len() - 1
        });
        let (room, rooms) = (Arc::<Room>::default(), &mut tables[at].rooms);
        rooms.retain(|(_, room)| room.strong_count() > 0);
        rooms.push((worker, Arc::downgrade(&room)));
        room
    }

    /// How full each table is on each worker. Of one that is about to take another's place both are known, and the one
    /// that is used is shown.
    pub(crate) fn tables(&self) -> Vec<TableReport> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let rooms = |table: &NamedTable| {
            let mut of_workers: BTreeMap<usize, Arc<Room>> = BTreeMap::new();
            for (worker, room) in &table.rooms {
                if let Some(room) = room.upgrade() {
                    of_workers.entry(*worker).or_insert(room);
                }
            }
            of_workers
        };
        let report = |table: &NamedTable, worker: usize, room: &Room| TableReport {
            function: table.function.clone(),
            table: table.name.clone(),
            worker: Some(worker),
            entries: room.entries.load(Ordering::Relaxed),
            limit: room.limit.load(Ordering::Relaxed),
        };
        let of = |table| rooms(table).into_iter().map(move |(worker, room)| report(table, worker, &room));
        tables.iter().flat_map(of).collect()
    }
}

/// A worker's part of what has this name, which it may have been given before.
fn cell(named: &Mutex<Vec<NamedCounter>>, function: &str, name: &str, worker: usize) -> Arc<AtomicU64> {
    let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
    let known = named.iter().position(|known| known.function == function && known.name == name);
    let at = known.unwrap_or_else(|| {
        named.push(NamedCounter { function: function.to_owned(), name: name.to_owned(), cells: Vec::new() });
        named.len() - 1
    });
    let cells = &mut named[at].cells;
    if let Some((_, cell)) = cells.iter().find(|(of, _)| *of == worker) {
        return Arc::clone(cell);
    }
    let cell: Arc<AtomicU64> = Arc::default();
    cells.push((worker, Arc::clone(&cell)));
    cell
}

fn sums(named: &Mutex<Vec<NamedCounter>>) -> Vec<(String, String, u64)> {
    let named = named.lock().unwrap_or_else(PoisonError::into_inner);
    let sum = |cells: &[(usize, Arc<AtomicU64>)]| {
        // A counter may wrap, and a gauge of a function's own may be below zero.
        cells.iter().map(|(_, cell)| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    };
    named.iter().map(|of| (of.function.clone(), of.name.clone(), sum(&of.cells))).collect()
}
