//! Rules over keys of fixed size (`rte_acl`): the first rule that matches, a burst at a time.
//!
//! DPDK turns the rules into at most eight tries, each of whose nodes takes a byte of the key,
//! and walks many keys through them at once with the widest instructions that there are. The
//! cost of a look-up grows slowly with the number of rules. What rules cost in memory depends
//! on how they overlap: a field that comes early and is a wildcard in many rules multiplies.

use crate::Errno;
use crate::memory::Memory;
use crate::running::Running;
use dpdk_sys as sys;
use std::ffi::CString;
use std::fmt;
use std::mem::offset_of;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A part of a key, in the order of the key's bytes, and how rules speak of it.
///
/// DPDK reads the first byte of a key and then words of four bytes (`rte_acl.h`). So the first
/// field has one byte and a word of its own; those after it have 1, 2 or 4 bytes and fill word
/// after word, none lying across two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AclField {
    /// So many bytes, of which the first bits are compared: an address.
    Prefix(u8),
    /// A number of so many bytes between two others, both included: a port.
    Range(u8),
    /// So many bytes, of which chosen bits are compared: flags.
    Bits(u8),
}

/// What a rule says of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct AclValue {
    /// The address, the lowest number, or the bits that are to be found.
    pub value: u32,
    /// The length of the prefix, the highest number, or the bits that are compared. Zero is
    /// every value of a prefix or of bits.
    pub extent: u32,
}

/// A rule: what it says of each field, and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AclRule<const FIELDS: usize> {
    /// What a look-up answers when no earlier rule matches.
    pub answer: NonZeroU32,
    /// In the order of the fields.
    pub fields: [AclValue; FIELDS],
}

/// How keys are walked through the tries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum AclAlgorithm {
    /// Plain C, two keys at once; on every machine.
    Scalar,
    /// SSE 4.1, eight at once.
    Sse,
    /// AVX2, sixteen at once.
    Avx2,
    /// AVX-512 instructions on 256 bits, sixteen at once.
    Avx512x16,
    /// AVX-512, 32 at once. The EAL keeps it off unless `--force-max-simd-bitwidth=512` is
    /// given.
    Avx512x32,
}

impl AclAlgorithm {
    /// All of them for x86-64, worst first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Sse, Self::Avx2, Self::Avx512x16, Self::Avx512x32];

    fn raw(self) -> sys::rte_acl_classify_alg::Type {
        use sys::rte_acl_classify_alg as algorithm;
        match self {
            Self::Scalar => algorithm::RTE_ACL_CLASSIFY_SCALAR,
            Self::Sse => algorithm::RTE_ACL_CLASSIFY_SSE,
            Self::Avx2 => algorithm::RTE_ACL_CLASSIFY_AVX2,
            Self::Avx512x16 => algorithm::RTE_ACL_CLASSIFY_AVX512X16,
            Self::Avx512x32 => algorithm::RTE_ACL_CLASSIFY_AVX512X32,
        }
    }
}

impl fmt::Display for AclAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Scalar => "scalar",
            Self::Sse => "sse",
            Self::Avx2 => "avx2",
            Self::Avx512x16 => "avx512x16",
            Self::Avx512x32 => "avx512x32",
        })
    }
}

/// Why there is no [`Acl`]. Rules and fields are counted from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// The fields are not laid out as DPDK reads keys, or not over the whole key.
    #[error("field {field} does not fit: one of 1 byte first, then words of 4 bytes to the end of the key")]
    Field {
        /// The field; their number, when the key is longer than they are.
        field: usize,
    },
    /// A prefix is longer than its field, a range ends before it begins, or a value is too
    /// large for its field.
    #[error("rule {rule} says of field {field} what cannot be: {value:?}")]
    Value {
        /// The rule.
        rule: usize,
        /// The field.
        field: usize,
        /// What it says.
        value: AclValue,
    },
    /// More rules than DPDK can number.
    #[error("{rules} rules are more than the {most} that there can be")]
    TooManyRules {
        /// Rules given.
        rules: usize,
        /// Most that can be.
        most: usize,
    },
    /// The rules together need more memory than there is, or more than the eight tries that
    /// DPDK takes.
    #[error("no memory for {rules} rules: use fewer, or fewer that overlap, or give the EAL more hugepages")]
    OutOfMemory {
        /// Rules given.
        rules: usize,
    },
    /// DPDK refuses for a reason of its own.
    #[error("DPDK refuses {rules} rules: {errno}")]
    Refused {
        /// Rules given.
        rules: usize,
        /// What it says.
        errno: Errno,
    },
}

/// Rules over keys of so many words. It never changes, so any number of threads may use it at
/// once; other rules are another `Acl`. While one is there, DPDK is not cleaned up.
///
/// A key is an array of words of four bytes, each byte at the place that it has in a packet:
/// `u32::from_ne_bytes` of octets, or `to_be` of a number.
///
/// ```no_run
/// use dpdk_rs::{Acl, AclField, AclRule, AclValue, Eal};
/// use std::num::NonZeroU32;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (eal, _rest) = Eal::init(std::env::args())?;
/// // A protocol, a destination and two ports.
/// let fields = [AclField::Bits(1), AclField::Prefix(4), AclField::Range(2), AclField::Range(2)];
/// let any_port = AclValue { value: 0, extent: 65_535 };
/// let dns = AclRule {
///     answer: NonZeroU32::MIN,
///     fields: [
///         AclValue { value: 17, extent: 0xff },
///         AclValue { value: 0xc000_0200, extent: 24 },
///         any_port,
///         AclValue { value: 53, extent: 53 },
///     ],
/// };
/// let acl: Acl<3> = Acl::new(&eal.memory(), &fields, [dns].into_iter())?;
///
/// let key = [u32::from_ne_bytes([17, 0, 0, 0]), u32::from_ne_bytes([192, 0, 2, 1]), (40_000 << 16 | 53_u32).to_be()];
/// let mut answers = [0];
/// acl.classify(&[key], &mut answers);
/// assert_eq!(answers, [1]);
/// # Ok(())
/// # }
/// ```
pub struct Acl<const WORDS: usize> {
    /// None when there are no rules: DPDK builds nothing out of nothing.
    context: Option<Context>,
    algorithm: AclAlgorithm,
    bytes: usize,
}

impl<const WORDS: usize> Acl<WORDS> {
    /// Most keys that are walked by one call into DPDK.
    pub const BURST: usize = 64;

    /// Most rules that there can be, whatever the memory: DPDK has priorities of 29 bits.
    pub const MOST_RULES: usize = sys::DPDK_ACL_MAX_PRIORITY as usize;

    /// Builds the tries, an earlier rule before a later one, and takes the best algorithm that
    /// the processor has and the EAL allows. Takes its time (milliseconds for a hundred rules,
    /// a second or two for ten thousand) and of the heap several times what the result takes,
    /// mostly 10 to 50 kB per rule, without a limit of DPDK's: not for lcores. One is built at
    /// a time.
    ///
    /// # Errors
    ///
    /// [`AclError`]; nothing is left behind then.
    pub fn new<const FIELDS: usize>(
        memory: &Memory,
        fields: &[AclField; FIELDS],
        rules: impl ExactSizeIterator<Item = AclRule<FIELDS>>,
    ) -> Result<Self, AclError> {
        let config = config::<WORDS>(fields)?;
        let count = rules.len();
        let rule_size = size_of::<RawRule<FIELDS>>();
        // DPDK multiplies the two in 32 bits (rte_acl_create).
        let most = Self::MOST_RULES.min((1 << 31) / rule_size);
        if count > most {
            return Err(AclError::TooManyRules { rules: count, most });
        }
        let mut acl = Self { context: None, algorithm: AclAlgorithm::Scalar, bytes: 0 };
        if count > 0 {
            let account = Account::open();
            let mut context = Context::new(memory, count, rule_size)?;
            // Not more than were made room for, whatever the iterator says of its length.
            for (index, rule) in rules.take(count).enumerate() {
                context.add(&RawRule::new(fields, index, &rule)?, count)?;
            }
            context.build(&config, count)?;
            acl.bytes = account.close();
            acl.context = Some(context);
        }
        let best = AclAlgorithm::ALL.into_iter().rev().find(|algorithm| acl.use_algorithm(*algorithm));
        debug_assert!(best.is_some(), "scalar is on every machine");
        Ok(acl)
    }

    /// Writes the answer of the first rule that matches each key, 0 where none does, into the
    /// place beside it; as far as both slices go.
    #[inline]
    pub fn classify(&self, keys: &[[u32; WORDS]], answers: &mut [u32]) {
        let Some(context) = &self.context else {
            answers.iter_mut().take(keys.len()).for_each(|answer| *answer = 0);
            return;
        };
        for (keys, answers) in keys.chunks(Self::BURST).zip(answers.chunks_mut(Self::BURST)) {
            context.classify(keys, answers);
        }
    }

    /// The algorithm in use.
    #[must_use]
    pub fn algorithm(&self) -> AclAlgorithm {
        self.algorithm
    }

    /// Uses another algorithm, to compare; false, and nothing is changed, where the processor
    /// does not have it or the EAL does not allow it.
    pub fn use_algorithm(&mut self, algorithm: AclAlgorithm) -> bool {
        let allowed = match &mut self.context {
            Some(context) => context.set_algorithm(algorithm),
            None => algorithm == AclAlgorithm::Scalar,
        };
        if allowed {
            self.algorithm = algorithm;
        }
        allowed
    }

    /// Bytes of the EAL's memory that it takes, by the EAL's account of before and after: what
    /// other threads allocated meanwhile is in it too.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<const WORDS: usize> fmt::Debug for Acl<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acl").field("algorithm", &self.algorithm).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The fields in DPDK's terms, laid out over a key of so many words.
fn config<const WORDS: usize>(fields: &[AclField]) -> Result<sys::rte_acl_config, AclError> {
    // Without a limit on the result DPDK bounds what a rule may add to a trie the most tightly
    // (NODE_MIN): up to a hundred times less memory than with one, for a few nanoseconds.
    let mut config = sys::rte_acl_config { num_categories: 1, ..Default::default() };
    let mut offset = 0_u32;
    for (index, (field, place)) in fields.iter().zip(&mut config.defs).enumerate() {
        let size = field.size();
        // What is left of the word that the field begins in.
        let room = if index == 0 { 1 } else { 4 - offset % 4 };
        let whole_words = offset as usize / 4 < WORDS;
        if !matches!(size, 1 | 2 | 4) || u32::from(size) > room || (index == 0 && size != 1) || !whole_words {
            return Err(AclError::Field { field: index });
        }
        let (Ok(field_index), Ok(input_index)) = (u8::try_from(index), u8::try_from(offset / 4)) else {
            return Err(AclError::Field { field: index });
        };
        *place = sys::rte_acl_field_def { type_: field.raw_type(), size, field_index, input_index, offset };
        offset += if index == 0 { 4 } else { u32::from(size) };
    }
    let placed = fields.len().min(config.defs.len());
    if placed < fields.len() || offset as usize != WORDS * size_of::<u32>() {
        return Err(AclError::Field { field: placed });
    }
    config.num_fields = u32::try_from(placed).unwrap_or(0);
    Ok(config)
}

impl AclField {
    fn size(self) -> u8 {
        let (Self::Prefix(size) | Self::Range(size) | Self::Bits(size)) = self;
        size
    }

    fn raw_type(self) -> u8 {
        #[allow(clippy::cast_possible_truncation, reason = "three small constants")]
        let raw = match self {
            Self::Prefix(_) => sys::DPDK_ACL_FIELD_MASK,
            Self::Range(_) => sys::DPDK_ACL_FIELD_RANGE,
            Self::Bits(_) => sys::DPDK_ACL_FIELD_BITMASK,
        } as u8;
        raw
    }

    /// Whether a rule may say this of the field.
    fn takes(self, AclValue { value, extent }: AclValue) -> bool {
        let bits = u32::from(self.size()) * 8;
        let most = u32::MAX >> (32 - bits);
        match self {
            Self::Prefix(_) => value <= most && extent <= bits,
            Self::Range(_) => value <= extent && extent <= most,
            Self::Bits(_) => value <= most && extent <= most,
        }
    }
}

/// `struct rte_acl_rule` with its fields (RTE_ACL_RULE_DEF).
#[repr(C)]
struct RawRule<const FIELDS: usize> {
    data: sys::rte_acl_rule_data,
    fields: [sys::rte_acl_field; FIELDS],
}

const _: () = assert!(offset_of!(RawRule<1>, fields) == offset_of!(sys::rte_acl_rule, field));
// A small field is read as the first bytes of its 64 bits.
const _: () = assert!(cfg!(target_endian = "little"));

impl<const FIELDS: usize> RawRule<FIELDS> {
    /// Rule number `index` of those over these fields, if it makes sense.
    fn new(fields: &[AclField; FIELDS], index: usize, rule: &AclRule<FIELDS>) -> Result<Self, AclError> {
        let wide = |value: u32| sys::rte_acl_field_types { u64_: u64::from(value) };
        let mut raw = Self {
            data: sys::rte_acl_rule_data {
                category_mask: 1,
                // The highest wins, and there are at most as many rules as priorities.
                priority: i32::try_from(sys::DPDK_ACL_MAX_PRIORITY as usize - index).unwrap_or(1),
                userdata: rule.answer.get(),
            },
            fields: [sys::rte_acl_field::default(); FIELDS],
        };
        for (number, ((field, value), place)) in fields.iter().zip(rule.fields).zip(&mut raw.fields).enumerate() {
            if !field.takes(value) {
                return Err(AclError::Value { rule: index, field: number, value });
            }
            *place = sys::rte_acl_field { value: wide(value.value), mask_range: wide(value.extent) };
        }
        Ok(raw)
    }
}

/// What DPDK made, freed once.
struct Context {
    raw: NonNull<sys::rte_acl_ctx>,
    /// DPDK's memory is there as long as this is.
    _running: Arc<Running>,
}

// SAFETY: a context belongs to no thread: rte_acl_free takes the lock of DPDK's list of
// contexts, and rte_free finds the heap in the block's own header.
unsafe impl Send for Context {}
// SAFETY: what takes `&self` is rte_acl_classify, which takes the context as const and keeps
// the state of a walk on its caller's stack; what changes the context takes `&mut self`.
unsafe impl Sync for Context {}

impl Context {
    /// An empty one with room for so many rules.
    fn new(memory: &Memory, rules: usize, rule_size: usize) -> Result<Self, AclError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // Never one that is there: DPDK would hand out the other's context.
        let name = format!("dpdk-rs-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        debug_assert!(name.len() < sys::DPDK_ACL_NAME_SIZE as usize, "20 digits at most");
        let (Ok(name), Ok(rule_size), Ok(max_rule_num)) =
            (CString::new(name), u32::try_from(rule_size), u32::try_from(rules))
        else {
            return Err(AclError::OutOfMemory { rules });
        };
        let socket_id = memory.socket_id().map_err(|_| AclError::OutOfMemory { rules })?;
        let parameters = sys::rte_acl_param { name: name.as_ptr(), socket_id, rule_size, max_rule_num };
        // SAFETY: the EAL is up, as `memory` holds it; any thread may call, as the list of
        // contexts and the heap have locks. The name is NUL-terminated and copied, and
        // `rule_size * max_rule_num` is below 2^32 (`Acl::new`).
        let raw = unsafe { sys::rte_acl_create(&raw const parameters) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, _running: Arc::clone(memory.running()) }),
            // The only reason beside parameters that are wrong; DPDK sets no errno for it.
            None => Err(AclError::OutOfMemory { rules }),
        }
    }

    /// Adds a rule of the size that the context was made for, one of `rules`.
    fn add<const FIELDS: usize>(&mut self, rule: &RawRule<FIELDS>, rules: usize) -> Result<(), AclError> {
        let first: *const RawRule<FIELDS> = rule;
        // SAFETY: one rule of `rule_size` bytes, all initialised, is there to be copied; DPDK
        // refuses what it has no room for.
        let code = unsafe { sys::rte_acl_add_rules(self.raw.as_ptr(), first.cast(), 1) };
        Errno::check(code).map(drop).map_err(|errno| AclError::Refused { rules, errno })
    }

    fn build(&mut self, config: &sys::rte_acl_config, rules: usize) -> Result<(), AclError> {
        // SAFETY: nobody else has the context yet, and the fields of each rule are those of
        // `config`, with values that `AclField::takes`.
        let code = unsafe { sys::rte_acl_build(self.raw.as_ptr(), config) };
        Errno::check(code).map(drop).map_err(|errno| match errno.0 {
            libc::ENOMEM => AclError::OutOfMemory { rules },
            _ => AclError::Refused { rules, errno },
        })
    }

    fn set_algorithm(&mut self, algorithm: AclAlgorithm) -> bool {
        // SAFETY: nobody else uses the context during `&mut self`; DPDK refuses an algorithm
        // that the processor does not have or the EAL does not allow.
        unsafe { sys::rte_acl_set_ctx_classify(self.raw.as_ptr(), algorithm.raw()) == 0 }
    }

    /// At most [`Acl::BURST`] keys.
    #[inline]
    fn classify<const WORDS: usize>(&self, keys: &[[u32; WORDS]], answers: &mut [u32]) {
        let mut pointers = [std::ptr::null::<u8>(); Acl::<0>::BURST];
        let mut count = 0;
        for ((key, pointer), _) in keys.iter().zip(&mut pointers).zip(&*answers) {
            *pointer = key.as_ptr().cast();
            count += 1;
        }
        // SAFETY: the first `count` pointers lead to keys of WORDS words, which are all that
        // DPDK reads: the first byte, which it may read as a word, and words at the fields'
        // offsets (`config`). There is room for as many answers, of one category each. The
        // context is built.
        unsafe {
            sys::rte_acl_classify(self.raw.as_ptr(), pointers.as_mut_ptr(), answers.as_mut_ptr(), count, 1);
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by rte_acl_create under a name of its own, so nobody else has it, and
        // freed once, while `_running` keeps the EAL up.
        unsafe { sys::rte_acl_free(self.raw.as_ptr()) };
    }
}

/// How the EAL's heaps change while something is built.
struct Account {
    before: usize,
    /// One build at a time is counted.
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Account {
    fn open() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { before: allocated(), _turn: turn }
    }

    fn close(self) -> usize {
        allocated().saturating_sub(self.before)
    }
}

/// Bytes in use of all the EAL's heaps.
fn allocated() -> usize {
    // SAFETY: the EAL is up, as a `Memory` is there; the nodes are written down at start.
    let nodes = unsafe { sys::rte_socket_count() };
    (0..nodes).map(allocated_on).sum()
}

fn allocated_on(node: u32) -> usize {
    // SAFETY: as in `allocated`; -1 for an index that is out of range.
    let socket = unsafe { sys::rte_socket_id_by_idx(node) };
    let mut stats = sys::rte_malloc_socket_stats::default();
    // SAFETY: the EAL is up; DPDK fills what it is given, under the heap's lock, or returns -1
    // for a socket without a heap.
    let code = unsafe { sys::rte_malloc_get_socket_stats(socket, &raw mut stats) };
    if code == 0 { stats.heap_allocsz_bytes } else { 0 }
}
