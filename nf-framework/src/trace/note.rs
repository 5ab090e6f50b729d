//! A few words about a packet, without an allocation.

use std::fmt;

/// What a function has to say of a packet that is being traced: a session, a rule. What does not fit into
/// [`Note::CAPACITY`] bytes is cut off.
///
/// ```
/// use std::fmt::Write as _;
///
/// let mut note = nf_framework::Note::default();
/// let _ = write!(note, "rule {}", "web");
/// assert_eq!(note.as_str(), "rule web");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Note {
    bytes: [u8; Self::CAPACITY],
    length: usize,
}

impl Note {
    /// Bytes that there is room for.
    pub const CAPACITY: usize = 120;

    /// What was said.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Default for Note {
    fn default() -> Self {
        Self { bytes: [0; Self::CAPACITY], length: 0 }
    }
}

impl fmt::Write for Note {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = &text[..text.floor_char_boundary(Self::CAPACITY - self.length)];
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn what_does_not_fit_is_cut_off_between_two_characters() {
        let mut note = Note::default();
        write!(note, "{}{}", "x".repeat(Note::CAPACITY - 1), "ü and more").unwrap();
        assert_eq!(note.as_str(), "x".repeat(Note::CAPACITY - 1));
        write!(note, "ab").unwrap();
        assert_eq!(note.as_str(), "x".repeat(Note::CAPACITY - 1) + "a");
    }
}
