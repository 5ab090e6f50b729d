//! A TCP connection as somebody between its ends sees it: ten states, and which sequence numbers can be.
//!
//! The states and what moves them are those of Linux conntrack, whose users' expectations firewalls are held to;
//! windows are judged as van Rooij's "Real Stateful TCP Packet Filtering in IP Filter" (2001) has it.

use super::timer::Timer;
use nf_framework::headers::TcpFlags;

/// How far a connection is. (That of no connection is having no entry.)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum State {
    #[default]
    SynSent,
    /// Both sides have sent a SYN, and neither an answer.
    SynSent2,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
}

/// What a segment says, by its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

/// What is seen of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) flags: TcpFlags,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) window: u16,
    /// Octets of data.
    pub(super) payload: u32,
    /// The window scale option, RFC 7323 section 2.2; more than 14 counts as 14.
    pub(super) scale: Option<u8>,
    /// The highest edge of the SACK option, RFC 2018 section 3.
    pub(super) sacked: Option<u32>,
    /// It is the first fragment of more than is here.
    pub(super) is_part: bool,
}

/// What becomes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// It passes, and the connection has a new time.
    Follows,
    /// It passes and says nothing: its receiver may know better.
    Ignored,
    /// It is a SYN on a connection that is over: a new one would begin.
    BeginsAnew,
    /// The state has no such segment.
    WrongState,
    /// Its numbers are none that its sender can have now.
    OutOfWindow,
    /// A reset that its receiver would not believe.
    InexactReset,
}

/// One side's numbers; all are those of RFC 9293 section 3.4, compared modulo 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Numbers {
    /// Behind what it has sent.
    pub(super) end: u32,
    /// Behind what the other side lets it send.
    pub(super) most: u32,
    /// The largest window that it has offered; 0 until it has sent anything.
    pub(super) window: u32,
    /// The highest number that it has acknowledged; until then see [`Tcp::first_acknowledgment`].
    pub(super) acknowledged: u32,
}

/// A connection: 36 octets, so that an entry of the table is one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tcp {
    /// Of the originator, and of the responder.
    pub(super) sides: [Numbers; 2],
    pub(super) state: State,
    /// The window scales, four bits for each side.
    scales: u8,
    marks: u8,
    /// Room in the entry's line that TCP has no need of: the connection's, whatever its protocol.
    pub(super) beside: u8,
}

/// What the last segment was, as far as later ones are judged by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Last {
    Nothing = 0,
    /// A SYN of the originator on a live connection.
    IgnoredSyn = 16,
    /// The responder answered a SYN by an acknowledgment of something else, whose number is kept in its
    /// `acknowledged`.
    Challenge = 32,
}

/// The side has acknowledged something; times two for the responder.
const ACKNOWLEDGED: u8 = 1;
/// Both sides have begun at once.
const SIMULTANEOUS: u8 = 4;
/// Its beginning was not seen, so that nothing is known of windows.
const LIBERAL: u8 = 8;
/// One of [`Last`].
const LAST: u8 = 16 | 32;
/// A side that has offered no scale.
const NO_SCALE: u8 = 15;
/// An acknowledgment may lag so far at least.
const LAG: u32 = 66_000;

pub(super) const ORIGINATOR: usize = 0;
pub(super) const RESPONDER: usize = 1;

fn after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// What a segment says; nothing for sets of flags that no TCP sends.
pub(super) fn event(flags: TcpFlags) -> Option<Event> {
    const FREE: u8 = TcpFlags::PSH.0 | TcpFlags::ECE.0 | TcpFlags::CWR.0;
    const SYN: u8 = TcpFlags::SYN.0;
    const ACK: u8 = TcpFlags::ACK.0;
    const FIN_ACK: u8 = TcpFlags::FIN.0 | ACK;
    const RST: u8 = TcpFlags::RST.0;
    const URG: u8 = TcpFlags::URG.0;
    const SYN_URG: u8 = SYN | URG;
    const SYN_ACK: u8 = SYN | ACK;
    const RST_ACK: u8 = RST | ACK;
    const ACK_URG: u8 = ACK | URG;
    const FIN_ACK_URG: u8 = FIN_ACK | URG;
    Some(match flags.0 & !FREE {
        SYN | SYN_URG => Event::Syn,
        SYN_ACK => Event::SynAck,
        RST | RST_ACK => Event::Rst,
        FIN_ACK | FIN_ACK_URG => Event::Fin,
        ACK | ACK_URG => Event::Ack,
        _ => return None,
    })
}

impl Segment {
    /// Behind the last number that it takes.
    fn end(&self) -> u32 {
        let flags = u32::from(self.flags.contains(TcpFlags::SYN)) + u32::from(self.flags.contains(TcpFlags::FIN));
        self.sequence.wrapping_add(self.payload).wrapping_add(flags)
    }

    fn has(&self, flags: TcpFlags) -> bool {
        self.flags.contains(flags)
    }
}

impl Numbers {
    fn beginning(segment: &Segment) -> Self {
        let end = segment.end();
        // Until it acknowledges something, the place is its own: the first number that may be acknowledged to it.
        let acknowledged = segment.sequence.wrapping_add(1);
        Self { end, most: end, window: u32::from(segment.window).max(1), acknowledged }
    }
}

impl Tcp {
    /// A connection that begins with this SYN.
    pub(super) fn begun(segment: &Segment) -> Self {
        let mut tcp = Self { scales: NO_SCALE << 4 | NO_SCALE, ..Self::default() };
        tcp.sides[ORIGINATOR] = Numbers::beginning(segment);
        tcp.set_scale(ORIGINATOR, segment.scale);
        tcp
    }

    fn note(&mut self, last: Last) {
        self.marks = self.marks & !LAST | last as u8;
    }

    fn last_was(&self, last: Last) -> bool {
        self.marks & LAST == last as u8
    }

    /// A connection of which this acknowledgment is the first that is seen.
    pub(super) fn picked_up(segment: &Segment) -> Self {
        let mut tcp = Self { state: State::Established, marks: LIBERAL, ..Self::default() };
        let window = u32::from(segment.window).max(1);
        let (end, acknowledged) = (segment.end(), segment.acknowledgment);
        tcp.sides[ORIGINATOR] = Numbers { end, most: end.wrapping_add(window), window, acknowledged };
        tcp.sides[RESPONDER] = Numbers { end: acknowledged, most: acknowledged, window: 0, acknowledged: end };
        tcp.marks |= ACKNOWLEDGED;
        tcp
    }

    pub(super) fn timer(&self) -> Timer {
        match self.state {
            State::SynSent | State::SynSent2 => Timer::TcpSynSent,
            State::SynReceived => Timer::TcpSynReceived,
            State::Established => Timer::TcpEstablished,
            State::FinWait => Timer::TcpFinWait,
            State::CloseWait => Timer::TcpCloseWait,
            State::LastAck => Timer::TcpLastAck,
            State::TimeWait => Timer::TcpTimeWait,
            State::Close => Timer::TcpClose,
        }
    }

    /// Whether both sides have agreed and neither has reset it: worth keeping when the table is full.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait | State::CloseWait | State::LastAck)
    }

    /// Whether it waits for nothing but its time.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::TimeWait | State::Close)
    }

    /// Whether it is half open.
    pub(super) fn is_embryonic(&self) -> bool {
        matches!(self.state, State::SynSent | State::SynSent2 | State::SynReceived)
    }

    /// Whether both sides have been heard, where one alone could begin it.
    pub(super) fn is_agreed(&self) -> bool {
        const BOTH: u8 = ACKNOWLEDGED | ACKNOWLEDGED << RESPONDER;
        self.marks & LIBERAL == 0 || self.marks & BOTH == BOTH
    }

    /// The flags of the segment that began it, as far as they are known.
    pub(super) fn first_flags(&self) -> TcpFlags {
        if self.marks & LIBERAL == 0 { TcpFlags::SYN } else { TcpFlags::ACK }
    }

    /// Whether an ICMP error may quote this number of a side: one that it has sent, RFC 5927 section 4.1.
    pub(super) fn may_have_sent(&self, side: usize, sequence: u32) -> bool {
        let numbers = &self.sides[side & 1];
        let other = &self.sides[(side & 1) ^ 1];
        self.marks & LIBERAL != 0
            || !after(sequence, numbers.end) && !after(numbers.end.wrapping_sub(other.window.max(LAG)), sequence)
    }

    /// A segment that only carries data or acknowledges it, on an established connection: the way that nearly
    /// all take. False, and no change, if it needs [`Tcp::follow`].
    #[inline(always)]
    pub(super) fn carry(&mut self, side: usize, sequence: u32, acknowledgment: u32, window: u16, payload: u32) -> bool {
        let (from, to) = (side & 1, (side & 1) ^ 1);
        let (sender, receiver) = (self.sides[from], self.sides[to]);
        let end = sequence.wrapping_add(payload);
        let lag = sender.window.max(LAG);
        let known = sender.window != 0 && receiver.window != 0 && self.marks & (ACKNOWLEDGED << from) != 0;
        let fits = !after(sequence, sender.most)
            & !after(sender.end.wrapping_sub(receiver.window), end)
            & !after(acknowledgment, receiver.end)
            & !after(receiver.end.wrapping_sub(lag), acknowledgment);
        if self.state != State::Established || !known || !fits || after(end, sender.most) {
            return false;
        }
        let window = u32::from(window) << self.scale(from);
        self.record(from, end, acknowledgment, acknowledgment, window);
        true
    }

    /// Whether a SYN of this side begins another connection, as this one is over: after a reset any does, and in TIME_WAIT
    /// one whose number comes behind those of before, RFC 9293 section 3.10.7.4.
    pub(super) fn begins_anew(&self, side: usize, segment: &Segment) -> bool {
        let is_newer = self.marks & LIBERAL != 0 || !after(self.sides[side & 1].end, segment.sequence);
        event(segment.flags) == Some(Event::Syn)
            && (self.state == State::Close || self.state == State::TimeWait && is_newer)
    }

    /// What a segment of this side does.
    pub(super) fn follow(&mut self, side: usize, event: Event, segment: &Segment) -> Judgement {
        let from = side & 1;
        let by_originator = from == ORIGINATOR;
        let state = match self.transition(event, by_originator) {
            Transition::To(state) => state,
            Transition::Anew if self.begins_anew(side, segment) => return Judgement::BeginsAnew,
            Transition::Anew => return Judgement::WrongState,
            Transition::Wrong => return Judgement::WrongState,
            Transition::Ignored => {
                self.note_ignored(event, segment);
                return Judgement::Ignored;
            }
        };
        if event == Event::SynAck && !by_originator && !self.answers_the_syn(segment) {
            self.note_challenge(segment);
            return Judgement::Ignored;
        }
        // It acknowledges what provoked it, not the FIN: RFC 5961 section 4.
        if state == State::TimeWait && self.state == State::LastAck && self.last_was(Last::IgnoredSyn) && !by_originator
        {
            self.note(Last::Nothing);
            return Judgement::Ignored;
        }
        if event == Event::Rst {
            match self.judge_reset(from, segment) {
                Judgement::Follows => {}
                judgement => return judgement,
            }
        }
        let mut next = *self;
        let judgement = next.take_numbers(from, event, segment);
        if judgement == Judgement::Follows {
            next.state = state;
            next.note(Last::Nothing);
            if state == State::SynSent2 {
                next.marks |= SIMULTANEOUS;
            }
            *self = next;
        }
        judgement
    }

    fn transition(&self, event: Event, by_originator: bool) -> Transition {
        use State::{Close, CloseWait, Established, FinWait, LastAck, SynReceived, SynSent, SynSent2, TimeWait};
        use Transition::{Anew, Ignored, To, Wrong};
        match (event, self.state) {
            (Event::Rst, _) => To(Close),
            (Event::Syn, TimeWait | Close) => Anew,
            (Event::Syn, SynSent2) => To(SynSent2),
            (Event::Syn, SynSent) if by_originator => To(SynSent),
            (Event::Syn, SynSent) => To(SynSent2),
            (Event::Syn, _) if by_originator => Ignored,
            (Event::Syn, _) => Wrong,
            (Event::SynAck, SynSent2) => To(SynReceived),
            (Event::SynAck, SynReceived) if by_originator => To(SynReceived),
            (Event::SynAck, SynSent) if !by_originator => To(SynReceived),
            (Event::SynAck, _) if by_originator => Wrong,
            (Event::SynAck, _) => Ignored,
            (Event::Fin, SynSent | SynSent2) => Wrong,
            (Event::Fin, SynReceived | Established) => To(FinWait),
            (Event::Fin, FinWait | CloseWait | LastAck) => To(LastAck),
            (Event::Ack, SynSent | SynSent2) if by_originator => Wrong,
            (Event::Ack, SynSent | SynSent2) => Ignored,
            (Event::Ack, SynReceived) if by_originator || self.marks & SIMULTANEOUS != 0 => To(Established),
            (Event::Ack, SynReceived) => To(SynReceived),
            (Event::Ack, Established) => To(Established),
            (Event::Ack, FinWait | CloseWait) => To(CloseWait),
            (Event::Ack, LastAck) => To(TimeWait),
            (Event::Fin | Event::Ack, TimeWait) => To(TimeWait),
            (Event::Fin | Event::Ack, Close) => To(Close),
        }
    }

    fn note_ignored(&mut self, event: Event, segment: &Segment) {
        match event {
            Event::Syn => self.note(Last::IgnoredSyn),
            Event::Ack if self.state == State::SynSent => self.note_challenge(segment),
            _ => {}
        }
    }

    /// An answer to a SYN that is not about it: the originator will reset what is meant, and try again.
    fn note_challenge(&mut self, segment: &Segment) {
        if self.state == State::SynSent {
            self.sides[RESPONDER].acknowledged = segment.acknowledgment;
            self.note(Last::Challenge);
        }
    }

    /// Whether a SYN with an acknowledgment acknowledges the SYN of the originator and no more than came with it.
    fn answers_the_syn(&self, segment: &Segment) -> bool {
        if self.state != State::SynSent {
            return true;
        }
        let Numbers { end, acknowledged: first, .. } = self.sides[ORIGINATOR];
        !after(first, segment.acknowledgment) && !after(segment.acknowledgment, end)
    }

    /// RFC 5961 section 3: who has no exact number does not reset an established connection.
    fn judge_reset(&self, from: usize, segment: &Segment) -> Judgement {
        let (sender, receiver) = (self.sides[from], self.sides[from ^ 1]);
        if self.state == State::SynSent {
            return match from {
                ORIGINATOR if self.last_was(Last::Challenge) && segment.sequence == receiver.acknowledged => {
                    Judgement::Ignored
                }
                ORIGINATOR => Judgement::Follows,
                // RFC 9293 section 3.10.7.3: it acknowledges the SYN, or is none.
                _ if segment.has(TcpFlags::ACK) && self.answers_the_syn(segment) => Judgement::Follows,
                _ => Judgement::InexactReset,
            };
        }
        let expected = self.marks & (ACKNOWLEDGED << (from ^ 1)) != 0;
        if !expected || self.marks & LIBERAL != 0 {
            return Judgement::Follows;
        }
        let exact = segment.sequence == receiver.acknowledged || segment.sequence == sender.end;
        let old = after(receiver.acknowledged, segment.sequence);
        let established = self.state == State::Established;
        if !exact && (established || old) {
            return Judgement::InexactReset;
        }
        Judgement::Follows
    }

    /// Whether the numbers of a segment can be, and what they say.
    fn take_numbers(&mut self, from: usize, event: Event, segment: &Segment) -> Judgement {
        let to = from ^ 1;
        let is_syn = matches!(event, Event::Syn | Event::SynAck);
        let liberal = self.marks & LIBERAL != 0;
        let fresh = self.sides[from].window == 0;
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        let again = from == ORIGINATOR && self.state == State::SynSent;
        if is_syn && (fresh || opening && (again || after(segment.end(), self.sides[from].end))) {
            self.sides[from] = Numbers::beginning(segment);
            // Data may follow before the handshake is over, as far as the other SYN's window goes: RFC 7413 section 4.2.2.
            self.sides[from].most = self.sides[from].end.wrapping_add(self.sides[to].window);
            self.marks &= !(ACKNOWLEDGED << from);
            self.set_scale(from, segment.scale);
            if event == Event::Syn {
                return Judgement::Follows;
            }
        } else if fresh && !(event == Event::Rst && opening) {
            // What came before was not seen, or never came.
            let window = (u32::from(segment.window) << self.scale(from)).max(1);
            let end = segment.end();
            self.sides[from] = Numbers { end, most: end.wrapping_add(window), window, ..self.sides[from] };
        }
        let (sender, receiver) = (self.sides[from], self.sides[to]);
        let mut sequence = segment.sequence;
        let mut end = segment.end();
        let mut acknowledgment = segment.acknowledgment;
        let mut sacked = segment.sacked.unwrap_or(acknowledgment);
        let has_acknowledgment = segment.has(TcpFlags::ACK) && !(event == Event::Rst && acknowledgment == 0);
        if !has_acknowledgment {
            (acknowledgment, sacked) = (receiver.end, receiver.end);
        }
        // Who refuses a SYN has sent nothing yet.
        if event == Event::Rst && (sequence == 0 || fresh) && self.state == State::SynSent {
            (sequence, end) = (sender.end, sender.end);
        }
        if after(acknowledgment, sacked) {
            sacked = acknowledgment;
        }
        let lag = sender.window.max(LAG);
        let above = after(sequence, sender.most);
        let old = receiver.window != 0 && after(sender.end.wrapping_sub(receiver.window), end);
        let acknowledges_too_much = after(sacked, receiver.end);
        let acknowledges_too_little = after(receiver.end.wrapping_sub(lag), sacked);
        if !liberal {
            if above || acknowledges_too_much || acknowledges_too_little {
                return Judgement::OutOfWindow;
            }
            if old {
                // Sent again, as its acknowledgment was lost on the way behind us. Nobody resets by an old number.
                return if event == Event::Rst { Judgement::InexactReset } else { Judgement::Ignored };
            }
        }
        let shift = if is_syn { 0 } else { self.scale(from) };
        if has_acknowledgment {
            self.record(from, end, acknowledgment, sacked, u32::from(segment.window) << shift);
        } else if after(end, sender.end) {
            self.sides[from].end = end;
        }
        if liberal && after(acknowledgment, self.sides[to].end) {
            self.sides[to].end = acknowledgment;
        }
        if segment.is_part {
            // How long it is only its last fragment tells: as long as it may be.
            let most = self.sides[from].most;
            if after(most, self.sides[from].end) {
                self.sides[from].end = most;
            }
        }
        Judgement::Follows
    }

    /// Takes over what a segment says that is in the window.
    #[inline(always)]
    fn record(&mut self, from: usize, end: u32, acknowledgment: u32, sacked: u32, window: u32) {
        let to = from ^ 1;
        let seen = ACKNOWLEDGED << from;
        let first = self.marks & seen == 0;
        self.marks |= seen;
        let sender = &mut self.sides[from];
        sender.window = sender.window.max(window.wrapping_add(sacked.wrapping_sub(acknowledgment)));
        if after(end, sender.end) {
            sender.end = end;
        }
        if first || after(acknowledgment, sender.acknowledged) {
            sender.acknowledged = acknowledgment;
        }
        let beyond = end.wrapping_sub(sender.most);
        let overshoots = after(end, sender.most);
        let receiver = &mut self.sides[to];
        if overshoots && receiver.window != 0 {
            receiver.window = receiver.window.saturating_add(beyond);
        }
        // A window of nothing is probed by one octet.
        let most = sacked.wrapping_add(window.max(1));
        if after(most, receiver.most) {
            receiver.most = most;
        }
    }

    /// By how many bits a side's windows are shifted: by none unless both have offered it.
    pub(super) fn scale(&self, side: usize) -> u32 {
        let of = |side: usize| self.scales >> (4 * side) & 15;
        if of(ORIGINATOR) == NO_SCALE || of(RESPONDER) == NO_SCALE { 0 } else { of(side).into() }
    }

    fn set_scale(&mut self, side: usize, scale: Option<u8>) {
        let scale = scale.map_or(NO_SCALE, |scale| scale.min(14));
        self.scales = self.scales & !(15 << (4 * side)) | scale << (4 * side);
    }
}

enum Transition {
    To(State),
    Ignored,
    Anew,
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: usize = ORIGINATOR;
    const REPLY: usize = RESPONDER;

    fn segment(flags: u8, sequence: u32, acknowledgment: u32, payload: u32) -> Segment {
        Segment {
            flags: TcpFlags(flags),
            sequence,
            acknowledgment,
            window: 1000,
            payload,
            scale: None,
            sacked: None,
            is_part: false,
        }
    }

    #[test]
    fn only_sets_of_flags_that_mean_something_are_valid() {
        const VALID: [(u8, Event); 9] = [
            (0x02, Event::Syn),
            (0x22, Event::Syn),
            (0x12, Event::SynAck),
            (0x04, Event::Rst),
            (0x14, Event::Rst),
            (0x11, Event::Fin),
            (0x31, Event::Fin),
            (0x10, Event::Ack),
            (0x30, Event::Ack),
        ];
        for flags in 0..=u8::MAX {
            // PSH, ECE and CWR are free.
            let expected = VALID.iter().find(|(valid, _)| *valid == flags & 0x37).map(|(_, event)| *event);
            assert_eq!(event(TcpFlags(flags)), expected, "{flags:#04x}");
        }
    }

    /// By event and side, what a state becomes; `ig` passes, `iv` is invalid, `nw` begins anew.
    #[test]
    fn the_states_move_as_conntrack_has_them() {
        use State::*;
        const STATES: [State; 9] =
            [SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, TimeWait, Close, SynSent2];
        #[rustfmt::skip]
        let table = [
            (Event::Syn, true, "ss ig ig ig ig ig nw nw s2"),
            (Event::SynAck, true, "iv sr iv iv iv iv iv iv sr"),
            (Event::Fin, true, "iv fw fw la la la tw cl iv"),
            (Event::Ack, true, "iv es es cw cw tw tw cl iv"),
            (Event::Rst, true, "cl cl cl cl cl cl cl cl cl"),
            (Event::Syn, false, "s2 iv iv iv iv iv nw nw s2"),
            (Event::SynAck, false, "sr ig ig ig ig ig ig ig sr"),
            (Event::Fin, false, "iv fw fw la la la tw cl iv"),
            (Event::Ack, false, "ig sr es cw cw tw tw cl ig"),
            (Event::Rst, false, "cl cl cl cl cl cl cl cl cl"),
        ];
        for (event, by_originator, row) in table {
            for (state, expected) in STATES.into_iter().zip(row.split(' ')) {
                let tcp = Tcp { state, ..Tcp::default() };
                let found = match tcp.transition(event, by_originator) {
                    Transition::Ignored => "ig",
                    Transition::Wrong => "iv",
                    Transition::Anew => "nw",
                    Transition::To(SynSent) => "ss",
                    Transition::To(SynSent2) => "s2",
                    Transition::To(SynReceived) => "sr",
                    Transition::To(Established) => "es",
                    Transition::To(FinWait) => "fw",
                    Transition::To(CloseWait) => "cw",
                    Transition::To(LastAck) => "la",
                    Transition::To(TimeWait) => "tw",
                    Transition::To(Close) => "cl",
                };
                assert_eq!(found, expected, "{event:?} in {state:?}, of the originator: {by_originator}");
            }
        }
        // After a simultaneous open, the acknowledgment of either side is the last one.
        let tcp = Tcp { state: SynReceived, marks: SIMULTANEOUS, ..Tcp::default() };
        assert!(matches!(tcp.transition(Event::Ack, false), Transition::To(Established)));
    }

    /// 1000 and 5000 are the first numbers of data; both windows are 1000.
    fn established() -> Tcp {
        let mut tcp = Tcp::begun(&segment(0x02, 999, 0, 0));
        for (side, flags, sequence, acknowledgment) in
            [(REPLY, 0x12, 4999, 1000), (ORIGINAL, 0x10, 1000, 5000), (REPLY, 0x10, 5000, 1000)]
        {
            let segment = segment(flags, sequence, acknowledgment, 0);
            assert_eq!(tcp.follow(side, event(segment.flags).unwrap(), &segment), Judgement::Follows);
        }
        assert_eq!(tcp.state, State::Established);
        tcp
    }

    #[test]
    fn data_is_let_through_within_the_window_and_not_beyond() {
        use Judgement::{Follows, Ignored, OutOfWindow};
        for (what, segment, expected) in [
            ("the next data", segment(0x10, 1000, 5000, 100), Follows),
            ("up to the window's end", segment(0x10, 1900, 5000, 100), Follows),
            ("from the window's end", segment(0x10, 2000, 5000, 0), Follows),
            ("one beyond", segment(0x10, 2001, 5000, 0), OutOfWindow),
            ("a window back", segment(0x10, 0, 5000, 0), Follows),
            ("sent again long after", segment(0x10, 0u32.wrapping_sub(1), 5000, 0), Ignored),
            ("what was not sent is acknowledged", segment(0x10, 1000, 5001, 100), OutOfWindow),
            ("an old acknowledgment", segment(0x10, 1000, 4999_u32.wrapping_sub(LAG), 100), OutOfWindow),
        ] {
            let mut tcp = established();
            assert_eq!(tcp.follow(ORIGINAL, Event::Ack, &segment), expected, "{what}");
            let (mut fast, mut slow) = (established(), established());
            let Segment { sequence, acknowledgment, window, payload, .. } = segment;
            if fast.carry(ORIGINAL, sequence, acknowledgment, window, payload) {
                slow.follow(ORIGINAL, Event::Ack, &segment);
                assert_eq!((fast, expected), (slow, Follows), "{what}: the short way does the same");
            } else {
                assert_eq!(fast, established(), "{what}: the short way changes nothing");
            }
        }
    }

    #[test]
    fn windows_are_scaled_if_both_sides_offer_it() {
        for (offers, expected) in [
            ((Some(2), Some(3)), 1000 << 3),
            ((Some(2), None), 1000),
            ((None, Some(3)), 1000),
            ((Some(0), Some(200)), 1000 << 14),
        ] {
            let mut tcp = Tcp::begun(&Segment { scale: offers.0, ..segment(0x02, 999, 0, 0) });
            let answer = Segment { scale: offers.1, ..segment(0x12, 4999, 1000, 0) };
            assert_eq!(tcp.follow(REPLY, Event::SynAck, &answer), Judgement::Follows);
            assert_eq!(tcp.sides[ORIGINAL].most, 1000 + 1000, "that of a SYN never is");
            tcp.follow(ORIGINAL, Event::Ack, &segment(0x10, 1000, 5000, 0));
            tcp.follow(REPLY, Event::Ack, &segment(0x10, 5000, 1000, 0));
            assert_eq!(tcp.sides[ORIGINAL].most, 1000 + expected.max(1000), "{offers:?}");
        }
    }

    #[test]
    fn a_selective_acknowledgment_is_of_what_was_sent() {
        for (sacked, expected) in [(1100, Judgement::Follows), (1101, Judgement::OutOfWindow)] {
            let mut tcp = established();
            tcp.follow(ORIGINAL, Event::Ack, &segment(0x10, 1000, 5000, 100));
            let sack = Segment { sacked: Some(sacked), ..segment(0x10, 5000, 1000, 0) };
            assert_eq!(tcp.follow(REPLY, Event::Ack, &sack), expected, "{sacked}");
        }
    }

    #[test]
    fn a_reset_is_exact_or_none_until_one_side_has_ended() {
        use Judgement::{Follows, InexactReset};
        for (what, ended, sequence, expected) in [
            ("exact", false, 1000, Follows),
            ("in the window and not exact", false, 1042, InexactReset),
            ("before the window", false, 0, InexactReset),
            ("far before", false, 999, InexactReset),
            ("beyond the window", false, 1_000_000, InexactReset),
            ("in the window after a FIN", true, 1042, Follows),
            ("old after a FIN", true, 900, InexactReset),
        ] {
            let mut tcp = established();
            if ended {
                tcp.follow(REPLY, Event::Fin, &segment(0x11, 5000, 1000, 0));
            }
            let before = tcp.state;
            let found = tcp.follow(ORIGINAL, Event::Rst, &segment(0x04, sequence, 0, 0));
            assert_eq!(found, expected, "{what}");
            assert_eq!(tcp.state, if found == Follows { State::Close } else { before }, "{what}");
        }
        // Behind data that its receiver has not acknowledged yet.
        let mut tcp = established();
        tcp.follow(ORIGINAL, Event::Ack, &segment(0x18, 1000, 5000, 19));
        assert_eq!(tcp.follow(ORIGINAL, Event::Rst, &segment(0x14, 1019, 5000, 0)), Follows);
    }

    #[test]
    fn a_refused_syn_is_refused_by_who_has_seen_it() {
        use Judgement::{Follows, InexactReset};
        for (flags, acknowledgment, expected) in
            [(0x14, 1000, Follows), (0x14, 999, InexactReset), (0x14, 1001, InexactReset), (0x04, 0, InexactReset)]
        {
            let mut tcp = Tcp::begun(&segment(0x02, 999, 0, 0));
            let reset = segment(flags, 0, acknowledgment, 0);
            assert_eq!(tcp.follow(REPLY, Event::Rst, &reset), expected, "{flags:#x} {acknowledgment}");
        }
    }

    #[test]
    fn what_began_before_is_followed_without_windows() {
        let mut tcp = Tcp::picked_up(&segment(0x10, 1000, 5000, 100));
        assert!(!tcp.is_agreed(), "one side alone has said something");
        for (side, sequence, acknowledgment) in
            [(REPLY, 5000, 1100), (REPLY, 900_000, 1100), (ORIGINAL, 700_000, 800_000), (REPLY, 5000, 3_000_000)]
        {
            let segment = segment(0x10, sequence, acknowledgment, 100);
            assert_eq!(tcp.follow(side, Event::Ack, &segment), Judgement::Follows, "{sequence}");
            assert!(tcp.is_agreed());
        }
    }

    #[test]
    fn a_part_of_a_segment_may_be_as_long_as_the_window() {
        let mut tcp = established();
        let part = Segment { is_part: true, ..segment(0x10, 1000, 5000, 64) };
        assert_eq!(tcp.follow(ORIGINAL, Event::Ack, &part), Judgement::Follows);
        let whole = segment(0x10, 5000, 1900, 0);
        assert_eq!(tcp.follow(REPLY, Event::Ack, &whole), Judgement::Follows);
    }
}
