//! What is shown, and the keys that change it.

/// One of the things that are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum View {
    /// Something of everything.
    #[default]
    Overview,
    /// Ports and workers.
    Ports,
    /// The functions and what they cost.
    Chain,
    /// Reasons for drops.
    Drops,
    /// Backends, and how full functions are.
    Backends,
}

impl View {
    /// All, in the order of their keys.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Ports, Self::Chain, Self::Drops, Self::Backends];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "all",
            Self::Ports => "ports",
            Self::Chain => "chain",
            Self::Drops => "drops",
            Self::Backends => "backends",
        }
    }

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// A key that means something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A character.
    Character(char),
    /// To the next view, or to the one before.
    Tab,
    /// To the one before.
    BackTab,
    /// Scrolls.
    Up,
    /// Scrolls.
    Down,
    /// Scrolls by a screen.
    PageUp,
    /// Scrolls by a screen.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// Leaves the help.
    Escape,
}

/// How somebody wants to see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Looks {
    /// What is shown.
    pub view: View,
    /// Lines that have been scrolled past.
    pub scroll: usize,
    /// Whether the picture stands still.
    pub paused: bool,
    /// Whether the help is shown.
    pub help: bool,
    /// Whether there is enough of it.
    pub done: bool,
}

impl Looks {
    /// Follows a key. `lines` are those that there are, of which `page` fit.
    pub fn press(&mut self, key: Key, lines: usize, page: usize) {
        if self.help && !matches!(key, Key::Character('q')) {
            self.help = false;
            return;
        }
        let last = lines.saturating_sub(page);
        match key {
            Key::Character('q') => self.done = true,
            Key::Character('?' | 'h') => self.help = true,
            Key::Character('p' | ' ') => self.paused = !self.paused,
            Key::Character(digit @ '1'..='5') => {
                let at = digit.to_digit(10).map_or(0, |digit| digit as usize - 1);
                (self.view, self.scroll) = (View::ALL[at], 0);
            }
            Key::Character('j') | Key::Down => self.scroll += 1,
            Key::Character('k') | Key::Up => self.scroll = self.scroll.min(last).saturating_sub(1),
            Key::Tab => (self.view, self.scroll) = (self.view.step(1), 0),
            Key::BackTab => (self.view, self.scroll) = (self.view.step(View::ALL.len() - 1), 0),
            Key::PageUp => self.scroll = self.scroll.min(last).saturating_sub(page),
            Key::PageDown => self.scroll += page,
            Key::Home => self.scroll = 0,
            Key::End => self.scroll = last,
            Key::Character(_) | Key::Escape => {}
        }
        self.scroll = self.scroll.min(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_choose_scroll_and_end() {
        let after = |keys: &[Key]| {
            let mut looks = Looks::default();
            for key in keys {
                looks.press(*key, 30, 20);
            }
            looks
        };
        let scrolled = |keys: &[Key]| after(keys).scroll;
        assert_eq!(after(&[Key::Tab, Key::Tab]).view, View::Chain);
        assert_eq!(after(&[Key::BackTab]).view, View::Backends);
        assert_eq!(after(&[Key::Character('4')]).view, View::Drops);
        assert_eq!(scrolled(&[Key::Down, Key::Down, Key::Up]), 1);
        assert_eq!(scrolled(&[Key::PageDown]), 10, "the last line stays at the bottom");
        assert_eq!(scrolled(&[Key::End, Key::Up]), 9);
        assert_eq!(scrolled(&[Key::End, Key::PageUp]), 0);
        assert_eq!(scrolled(&[Key::Down, Key::Home]), 0);
        assert_eq!(scrolled(&[Key::Down, Key::Tab]), 0);
        assert!(after(&[Key::Character('p')]).paused && !after(&[Key::Character('p'), Key::Character(' ')]).paused);
        assert!(after(&[Key::Character('?')]).help && !after(&[Key::Character('?'), Key::Escape]).help);
        assert!(after(&[Key::Character('?'), Key::Character('q')]).done);
        assert_eq!(after(&[Key::Character('x'), Key::Escape]), Looks::default());
    }
}
