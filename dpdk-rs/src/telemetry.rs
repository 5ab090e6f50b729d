//! Commands of DPDK's telemetry, which dpdk-telemetry.py asks for: what they answer, and who does.
//!
//! DPDK takes an answer piece by piece into structures of fixed size, and what does not fit it loses without a word.
//! So an answer is cut to what fits before DPDK sees it, and says how much was left out.

use crate::{Eal, Errno};
use dpdk_sys as sys;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a command answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TelemetryValue {
    /// A number.
    Unsigned(u64),
    /// A number that may be negative. DPDK 22.11 takes 32 bits; one that has more is shown as a text.
    Signed(i64),
    /// A text: cut to 127 bytes within a dictionary, to 8191 when it is the whole answer.
    Text(String),
    /// Texts in their order, each of them cut to 127 bytes: 512 at most.
    Texts(Vec<String>),
    /// Values by name in their order: 256 at most. In a name only letters and digits of ASCII, `_` and `/` stay,
    /// anything else becomes `_`; of two names that are then the same the second gets a number.
    Dictionary(Vec<(String, Self)>),
}

/// A command cannot be registered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// A zero byte, which C cannot take.
    #[error("the telemetry command {0:?} or its help has a zero byte in it")]
    ZeroByte(String),
    /// What DPDK says.
    #[error("the telemetry command {command:?} cannot be registered: {errno}")]
    Register {
        /// The command.
        command: String,
        /// `EINVAL`: it does not begin with `/`, has more than 55 bytes, or its help has more than 63.
        errno: Errno,
    },
}

/// Answers a command, given its parameters: what the client wrote after the first comma, or nothing.
type Answer = Arc<dyn Fn(&str) -> TelemetryValue + Send + Sync>;

/// Who answers, by command. What is in it DPDK knows, and keeps for ever.
static COMMANDS: Mutex<BTreeMap<CString, Answer>> = Mutex::new(BTreeMap::new());

fn commands() -> MutexGuard<'static, BTreeMap<CString, Answer>> {
    COMMANDS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eal {
    /// Has `answer` answer a telemetry command, such as `/nf/ports`, from now on; who answered it before does so no
    /// more. With `--no-telemetry` nobody will ask.
    ///
    /// It is called on a thread of DPDK's for each client, also at once, and after this `Eal` has gone. While it has
    /// not returned, its client waits; nobody else does. One that panics is answered for.
    ///
    /// # Errors
    ///
    /// [`TelemetryError`]
    pub fn telemetry(
        &self,
        command: &str,
        help: &str,
        answer: impl Fn(&str) -> TelemetryValue + Send + Sync + 'static,
    ) -> Result<(), TelemetryError> {
        let c_string = |text: &str| CString::new(text).map_err(|_| TelemetryError::ZeroByte(command.to_owned()));
        let (c_command, c_help) = (c_string(command)?, c_string(help)?);
        let mut commands = commands();
        if !commands.contains_key(&c_command) {
            // SAFETY: both texts end with a zero and are copied; `answer_for` is there for ever and cannot unwind.
            let code =
                unsafe { sys::rte_telemetry_register_cmd(c_command.as_ptr(), Some(answer_for), c_help.as_ptr()) };
            Errno::check(code).map_err(|errno| TelemetryError::Register { command: command.to_owned(), errno })?;
        }
        let before = commands.insert(c_command, Arc::new(answer));
        // What it holds may do anything when it goes.
        drop(commands);
        drop(before);
        Ok(())
    }
}

/// What DPDK calls for every command of ours.
unsafe extern "C" fn answer_for(
    command: *const c_char,
    parameters: *const c_char,
    into: *mut sys::rte_tel_data,
) -> c_int {
    // SAFETY: the command as its client wrote it, which ends with a zero and stays until this returns (telemetry.c,
    // client_handler).
    let command = unsafe { CStr::from_ptr(command) };
    let parameters = match parameters.is_null() {
        true => c"",
        // SAFETY: as above.
        false => unsafe { CStr::from_ptr(parameters) },
    };
    let value = catch_unwind(AssertUnwindSafe(|| answered(command, &parameters.to_string_lossy())));
    let value = value.unwrap_or_else(|_| TelemetryValue::Text("this command has panicked".to_owned()));
    let Some(into) = NonNull::new(into) else { return -1 };
    // What is put into words here cannot panic, short of a lack of memory, which aborts.
    match fit(value) {
        // SAFETY: the structure is the caller's, for this function to fill.
        TelemetryValue::Dictionary(entries) => unsafe { fill(into, &entries) },
        TelemetryValue::Text(text) => {
            let text = c_text(&text);
            // SAFETY: as above, and the text ends with a zero.
            unsafe { sys::rte_tel_data_string(into.as_ptr(), text.as_ptr()) };
        }
        // `fit` makes none.
        _ => return -1,
    }
    0
}

fn answered(command: &CStr, parameters: &str) -> TelemetryValue {
    let answer = commands().get(command).map(Arc::clone);
    match answer {
        Some(answer) => answer(parameters),
        None => TelemetryValue::Text("nobody answers this command".to_owned()),
    }
}

/// Makes `into` a dictionary of these, which fit.
///
/// # Safety
///
/// `into` is for the caller to fill.
unsafe fn fill(into: NonNull<sys::rte_tel_data>, entries: &[(String, TelemetryValue)]) {
    let raw = into.as_ptr();
    // SAFETY: by this function's precondition.
    unsafe { sys::rte_tel_data_start_dict(raw) };
    for (name, value) in entries {
        let name = c_text(name);
        match value {
            TelemetryValue::Unsigned(number) => {
                // SAFETY: `raw` is a dictionary; the name ends with a zero and is copied.
                unsafe { sys::shim_telemetry_unsigned(raw, name.as_ptr(), *number) };
            }
            TelemetryValue::Signed(number) => {
                let number = i32::try_from(*number).unwrap_or_default();
                // SAFETY: as above.
                unsafe { sys::shim_telemetry_signed(raw, name.as_ptr(), number) };
            }
            TelemetryValue::Text(text) => {
                let text = c_text(text);
                // SAFETY: as above, for both texts.
                unsafe { sys::rte_tel_data_add_dict_string(raw, name.as_ptr(), text.as_ptr()) };
            }
            TelemetryValue::Texts(texts) => contain(into, &name, |inner| {
                // SAFETY: it has just been made, and is for us to fill.
                unsafe { sys::rte_tel_data_start_array(inner.as_ptr(), sys::rte_tel_value_type::RTE_TEL_STRING_VAL) };
                for text in texts {
                    let text = c_text(text);
                    // SAFETY: it is an array of texts; the text ends with a zero and is copied.
                    unsafe { sys::rte_tel_data_add_array_string(inner.as_ptr(), text.as_ptr()) };
                }
            }),
            TelemetryValue::Dictionary(entries) => contain(into, &name, |inner| {
                // SAFETY: it has just been made, and is for us to fill.
                unsafe { fill(inner, entries) };
            }),
        }
    }
}

/// Puts a container into the dictionary `into`, filled by `fill`. Nothing is put there if there is no memory for it.
fn contain(into: NonNull<sys::rte_tel_data>, name: &CStr, fill: impl FnOnce(NonNull<sys::rte_tel_data>)) {
    // SAFETY: no precondition.
    let Some(inner) = NonNull::new(unsafe { sys::rte_tel_data_alloc() }) else { return };
    fill(inner);
    // SAFETY: `into` is the dictionary that `fill` has begun; the name ends with a zero and is copied; `inner` is whole,
    // and with 0 DPDK's to free when the answer has been written.
    let code = unsafe { sys::rte_tel_data_add_dict_container(into.as_ptr(), name.as_ptr(), inner.as_ptr(), 0) };
    if code < 0 {
        // SAFETY: it was not taken, so it is still ours, and free of any other use.
        unsafe { sys::rte_tel_data_free(inner.as_ptr()) };
    }
}

/// Of a text that has no zero byte, as `fit` makes them.
fn c_text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// Bytes of a text or a name within an answer, and of a text that is the answer, each without its zero.
const TEXT: usize = sys::RTE_TEL_MAX_STRING_LEN as usize - 1;
const WHOLE_TEXT: usize = sys::RTE_TEL_MAX_SINGLE_STRING_LEN as usize - 1;
const NAMES: usize = sys::RTE_TEL_MAX_DICT_ENTRIES as usize;
const TEXTS: usize = sys::RTE_TEL_MAX_ARRAY_ENTRIES as usize;
/// Bytes of an answer written as JSON (`MAX_OUTPUT_LEN` in telemetry.c), but for the command and for what says
/// that something was left out.
const JSON: usize = 16 * 1024 - 128;
/// Containers in containers: DPDK writes each level on the stack of its thread, into 16 KiB of its own.
const LEVELS: usize = 8;
/// What says how much was left out.
const LEFT_OUT: &str = "left_out";

/// Cuts an answer to what DPDK can take: a dictionary or a text.
fn fit(value: TelemetryValue) -> TelemetryValue {
    let entries = match value {
        TelemetryValue::Text(text) => return TelemetryValue::Text(cut(&text, WHOLE_TEXT)),
        TelemetryValue::Dictionary(entries) => entries,
        other => vec![("value".to_owned(), other)],
    };
    let mut room = Room { bytes: JSON, left_out: 0 };
    // One less, for what says that there were more.
    let mut fitted = room.dictionary(entries, NAMES - 1, LEVELS);
    if room.left_out > 0 {
        fitted.push((LEFT_OUT.to_owned(), TelemetryValue::Unsigned(room.left_out)));
    }
    TelemetryValue::Dictionary(fitted)
}

/// What is left of the room for an answer.
struct Room {
    bytes: usize,
    /// Entries for which there was none. One that has others counts once, or they do.
    left_out: u64,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        // After the first that does not fit none does: an answer has a beginning and no holes.
        self.bytes = left.unwrap_or(0);
        left.is_some()
    }

    fn dictionary(
        &mut self,
        entries: Vec<(String, TelemetryValue)>,
        most: usize,
        levels: usize,
    ) -> Vec<(String, TelemetryValue)> {
        let mut fitted: Vec<(String, TelemetryValue)> = Vec::new();
        for (name, value) in entries {
            let name = distinct(&name, &fitted);
            // "name":,
            if fitted.len() < most
                && self.take(name.len() + 4)
                && let Some(value) = self.value(value, levels)
            {
                fitted.push((name, value));
            } else {
                self.left_out += 1;
            }
        }
        fitted
    }

    fn value(&mut self, value: TelemetryValue, levels: usize) -> Option<TelemetryValue> {
        match value {
            TelemetryValue::Unsigned(number) => self.take(number.to_string().len()).then_some(value),
            TelemetryValue::Signed(number) if i32::try_from(number).is_err() => {
                self.value(TelemetryValue::Text(number.to_string()), levels)
            }
            TelemetryValue::Signed(number) => self.take(number.to_string().len()).then_some(value),
            TelemetryValue::Text(text) => self.text(&text).map(TelemetryValue::Text),
            TelemetryValue::Texts(texts) => {
                if !self.take(2) {
                    return None;
                }
                let mut fitted = Vec::new();
                for text in texts {
                    match self.text(&text).filter(|_| fitted.len() < TEXTS) {
                        Some(text) => fitted.push(text),
                        None => self.left_out += 1,
                    }
                }
                Some(TelemetryValue::Texts(fitted))
            }
            TelemetryValue::Dictionary(entries) => {
                let levels = levels.checked_sub(1)?;
                self.take(2).then(|| TelemetryValue::Dictionary(self.dictionary(entries, NAMES, levels)))
            }
        }
    }

    fn text(&mut self, text: &str) -> Option<String> {
        let text = cut(text, TEXT);
        let escaped = text.chars().filter(|letter| matches!(letter, '"' | '\\')).count();
        // "text",
        self.take(text.len() + escaped + 3).then_some(text)
    }
}

/// A text of at most so many bytes, without control characters.
fn cut(text: &str, most: usize) -> String {
    const DOTS: &str = "...";
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if text.len() <= most {
        return text;
    }
    let end = (0..=most.saturating_sub(DOTS.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{DOTS}", text.get(..end).unwrap_or_default())
}

/// A name as DPDK takes them, that none of these has.
fn distinct(name: &str, others: &[(String, TelemetryValue)]) -> String {
    let fits = |letter: char| if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '/') { letter } else { '_' };
    // Some bytes less, for the number.
    let name: String = name.chars().map(fits).take(TEXT - 8).collect();
    let taken = |name: &str| others.iter().any(|(other, _)| other == name);
    let numbered = || (2..).map(|number| format!("{name}_{number}")).find(|name| !taken(name));
    if taken(&name) { numbered().unwrap_or(name) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TelemetryValue::{Dictionary, Signed, Text, Texts, Unsigned};

    fn dictionary<const N: usize>(entries: [(&str, TelemetryValue); N]) -> TelemetryValue {
        Dictionary(entries.map(|(name, value)| (name.to_owned(), value)).to_vec())
    }

    fn text(text: &str) -> TelemetryValue {
        Text(text.to_owned())
    }

    #[test]
    fn what_fits_stays_as_it_is_but_for_names() {
        for (value, expected) in [
            (text("one\nline\0"), text("one line ")),
            (Unsigned(7), dictionary([("value", Unsigned(7))])),
            (
                dictionary([("hand-over-full", Unsigned(1)), ("nat/sessions", Unsigned(u64::MAX))]),
                dictionary([("hand_over_full", Unsigned(1)), ("nat/sessions", Unsigned(u64::MAX))]),
            ),
            (
                dictionary([("a-b", Unsigned(1)), ("a.b", Unsigned(2)), ("a_b", Unsigned(3))]),
                dictionary([("a_b", Unsigned(1)), ("a_b_2", Unsigned(2)), ("a_b_3", Unsigned(3))]),
            ),
            (
                dictionary([("near", Signed(-5)), ("far", Signed(-5_000_000_000))]),
                dictionary([("near", Signed(-5)), ("far", text("-5000000000"))]),
            ),
            (
                dictionary([("inner", dictionary([("texts", Texts(vec!["a".to_owned()]))]))]),
                dictionary([("inner", dictionary([("texts", Texts(vec!["a".to_owned()]))]))]),
            ),
        ] {
            assert_eq!(fit(value.clone()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_letters_and_shows_it() {
        let long = "ä".repeat(5000);
        let Text(whole) = fit(text(&long)) else { panic!("a text stays one") };
        assert_eq!((whole.len(), whole.ends_with("ä...")), (8191, true));
        let Dictionary(entries) = fit(dictionary([("text", text(&long)), ("other", Unsigned(1))])) else { panic!() };
        assert_eq!(entries.len(), 2, "{entries:?}");
        assert!(matches!(&entries[0].1, Text(text) if text.len() == 127 && text.ends_with("ä...")), "{entries:?}");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let many = |count: usize, value: &TelemetryValue| {
            Dictionary((0..count).map(|number| (format!("name{number}"), value.clone())).collect())
        };
        let texts = Texts(vec!["x".to_owned(); 600]);
        let long = text(&"x".repeat(120));
        for (value, kept, left_out) in [
            (many(255, &Unsigned(1)), 255, None),
            (many(256, &Unsigned(1)), 255, Some(1)),
            (many(1000, &Unsigned(1)), 255, Some(745)),
            (dictionary([("inner", many(300, &Unsigned(1)))]), 1, Some(44)),
            (dictionary([("texts", texts)]), 1, Some(88)),
            // 132 to 134 bytes each, of 16256.
            (many(200, &long), 122, Some(78)),
        ] {
            let Dictionary(mut entries) = fit(value) else { panic!("a dictionary stays one") };
            let last = entries.pop_if(|(name, _)| name == LEFT_OUT).map(|(_, value)| value);
            assert_eq!((entries.len(), last), (kept, left_out.map(Unsigned)));
        }
        let deep = (0..20).fold(Unsigned(1), |inner, _| dictionary([("inner", inner)]));
        let Dictionary(entries) = fit(deep) else { panic!() };
        assert_eq!(entries.last(), Some(&(LEFT_OUT.to_owned(), Unsigned(1))), "{entries:?}");
    }
}
