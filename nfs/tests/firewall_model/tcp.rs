//! A TCP connection as Linux conntrack follows it, and as the firewall's README says that it differs.

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
const URG: u8 = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    SynSent2,
}

/// In the order of the table's columns.
const STATES: [(&str, State); 9] = [
    ("ss", State::SynSent),
    ("sr", State::SynReceived),
    ("es", State::Established),
    ("fw", State::FinWait),
    ("cw", State::CloseWait),
    ("la", State::LastAck),
    ("tw", State::TimeWait),
    ("cl", State::Close),
    ("s2", State::SynSent2),
];

/// By kind of segment and state what the state becomes: of the originator's, and of the responder's. "ig" passes
/// and says nothing, "iv" is invalid, "nw" would begin another connection.
const TABLE: [(Kind, &str, &str); 5] = [
    (Kind::Syn, "ss ig ig ig ig ig nw nw s2", "s2 iv iv iv iv iv nw nw s2"),
    (Kind::SynAck, "iv sr iv iv iv iv iv iv sr", "sr ig ig ig ig ig ig ig sr"),
    (Kind::Fin, "iv fw fw la la la tw cl iv", "iv fw fw la la la tw cl iv"),
    (Kind::Ack, "iv es es cw cw tw tw cl iv", "ig sr es cw cw tw tw cl ig"),
    (Kind::Rst, "cl cl cl cl cl cl cl cl cl", "cl cl cl cl cl cl cl cl cl"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

/// By its flags; PSH, ECE and CWR say nothing.
pub(crate) fn kind(flags: u8) -> Option<Kind> {
    const SYN_URG: u8 = SYN | URG;
    const SYN_ACK: u8 = SYN | ACK;
    const RST_ACK: u8 = RST | ACK;
    const FIN_ACK: u8 = FIN | ACK;
    const FIN_ACK_URG: u8 = FIN | ACK | URG;
    const ACK_URG: u8 = ACK | URG;
    match flags & 0x37 {
        SYN | SYN_URG => Some(Kind::Syn),
        SYN_ACK => Some(Kind::SynAck),
        RST | RST_ACK => Some(Kind::Rst),
        FIN_ACK | FIN_ACK_URG => Some(Kind::Fin),
        ACK | ACK_URG => Some(Kind::Ack),
        _ => None,
    }
}

/// What stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) window: u16,
    pub(crate) data: u32,
    pub(crate) scale: Option<u8>,
    /// The highest edge.
    pub(crate) sacked: Option<u32>,
    /// A first fragment: there is more of it.
    pub(crate) is_part: bool,
}

impl Segment {
    pub(crate) fn read(message: &[u8], is_part: bool) -> Self {
        let offset = usize::from(message[12] >> 4) * 4;
        let word = |at: usize| super::bytes::be32(message, at);
        let (scale, sacked) = options(&message[20..offset]);
        Self {
            flags: message[13],
            sequence: word(4),
            acknowledgment: word(8),
            window: super::bytes::be16(message, 14),
            data: u32::try_from(message.len() - offset).expect("a packet's length"),
            scale,
            sacked,
            is_part,
        }
    }

    fn end(&self) -> u32 {
        let bit = |flag| u32::from(self.flags & flag != 0);
        self.sequence.wrapping_add(self.data).wrapping_add(bit(SYN)).wrapping_add(bit(FIN))
    }
}

/// The window scale, and of SACK the highest edge.
fn options(options: &[u8]) -> (Option<u8>, Option<u32>) {
    let (mut at, mut scale, mut sacked) = (0, None, None);
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        let length = usize::from(options.get(at + 1).copied().unwrap_or(0));
        let Some(option) = (length >= 2).then(|| options.get(at..at + length)).flatten() else { break };
        if option.len() == 3 && option[0] == 3 {
            scale = Some(option[2]);
        }
        if option[0] == 5 {
            for block in option[2..].chunks_exact(8) {
                let edge = super::bytes::be32(block, 4);
                sacked = Some(sacked.filter(|sacked| !after(edge, *sacked)).unwrap_or(edge));
            }
        }
        at += length;
    }
    (scale, sacked)
}

pub(crate) fn after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) != 0 && one.wrapping_sub(other) < 1 << 31
}

/// What one side has said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    /// Behind its last octet.
    pub(crate) end: u32,
    /// Behind what it may send.
    pub(crate) most: u32,
    /// Nothing until it has said something.
    pub(crate) window: u64,
    pub(crate) acknowledged: Option<u32>,
    /// Behind its SYN.
    pub(crate) first: u32,
    scale: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    Nothing,
    /// The originator's, which passed.
    Syn,
    /// The answer to a SYN was about something else: this number.
    Challenge(u32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    pub(crate) state: State,
    /// Of the originator, and of the responder.
    pub(crate) sides: [Said; 2],
    simultaneous: bool,
    pub(crate) picked_up: bool,
    before: Before,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It passes, and its connection has a new time.
    Follows,
    /// It passes.
    Ignored,
    Drop(&'static str),
}

const STATE: Verdict = Verdict::Drop("firewall-tcp-state");
const WINDOW: Verdict = Verdict::Drop("firewall-tcp-window");
const RESET: Verdict = Verdict::Drop("firewall-tcp-reset");
const LAG: u64 = 66_000;

fn begin(segment: &Segment) -> Said {
    let (end, window) = (segment.end(), u64::from(segment.window).max(1));
    let first = segment.sequence.wrapping_add(1);
    Said { end, most: end, window, acknowledged: None, first, scale: segment.scale.map(|scale| scale.min(14)) }
}

#[allow(clippy::cast_possible_truncation, reason = "numbers go round")]
fn low(number: u64) -> u32 {
    number as u32
}

impl Tcp {
    pub(crate) fn new(segment: &Segment) -> Self {
        let (simultaneous, before) = (false, Before::Nothing);
        if segment.flags & SYN != 0 {
            let sides = [begin(segment), Said::default()];
            return Self { state: State::SynSent, sides, simultaneous, picked_up: false, before };
        }
        let (end, acknowledged) = (segment.end(), segment.acknowledgment);
        let window = u64::from(segment.window).max(1);
        let most = end.wrapping_add(low(window));
        let originator = Said { end, most, window, acknowledged: Some(acknowledged), ..Said::default() };
        let responder = Said { end: acknowledged, most: acknowledged, ..Said::default() };
        let state = State::Established;
        Self { state, sides: [originator, responder], simultaneous, picked_up: true, before }
    }

    /// Whether an ICMP error may be about this number of a side.
    pub(crate) fn may_have_sent(&self, side: usize, sequence: u32) -> bool {
        let (of, other) = (&self.sides[side], &self.sides[1 - side]);
        let back = low(other.window.max(LAG));
        self.picked_up || !after(sequence, of.end) && !after(of.end.wrapping_sub(back), sequence)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Close | State::TimeWait)
    }

    pub(crate) fn scale(&self, side: usize) -> u32 {
        match (self.sides[side].scale, self.sides[1 - side].scale) {
            (Some(scale), Some(_)) => scale.into(),
            _ => 0,
        }
    }

    fn acknowledges_the_syn(&self, segment: &Segment) -> bool {
        let Said { end, first, .. } = self.sides[0];
        !after(first, segment.acknowledgment) && !after(segment.acknowledgment, end)
    }

    /// Whether a segment of a side begins another connection under the same key.
    pub(crate) fn begins_anew(&self, side: usize, segment: &Segment) -> bool {
        let is_newer = self.picked_up || !after(self.sides[side].end, segment.sequence);
        let is_over = self.state == State::Close || self.state == State::TimeWait && is_newer;
        is_over && kind(segment.flags) == Some(Kind::Syn)
    }

    /// A segment of the originator (0) or of the responder (1).
    pub(crate) fn judge(&mut self, side: usize, kind: Kind, segment: &Segment) -> Verdict {
        let column = STATES.iter().position(|(_, state)| *state == self.state).expect("all are there");
        let (_, originator, responder) = TABLE.iter().find(|(of, ..)| *of == kind).expect("all are there");
        let mut becomes = if side == 0 { originator } else { responder }.split(' ').nth(column).expect("nine of them");
        // After a simultaneous open the acknowledgment of either is the last one.
        if (kind, self.state, side) == (Kind::Ack, State::SynReceived, 1) && self.simultaneous {
            becomes = "es";
        }
        let syn_sent = self.state == State::SynSent;
        match becomes {
            "iv" => return STATE,
            // Whoever asks has looked before whether it begins anew.
            "nw" => return STATE,
            "ig" => {
                if kind == Kind::Syn {
                    self.before = Before::Syn;
                }
                if kind == Kind::Ack && syn_sent {
                    self.before = Before::Challenge(segment.acknowledgment);
                }
                return Verdict::Ignored;
            }
            _ => {}
        }
        if kind == Kind::SynAck && side == 1 && syn_sent && !self.acknowledges_the_syn(segment) {
            self.before = Before::Challenge(segment.acknowledgment);
            return Verdict::Ignored;
        }
        if (kind, self.state, side, self.before) == (Kind::Ack, State::LastAck, 1, Before::Syn) {
            self.before = Before::Nothing;
            return Verdict::Ignored;
        }
        if kind == Kind::Rst {
            match self.judge_reset(side, segment) {
                Verdict::Follows => {}
                verdict => return verdict,
            }
        }
        let mut next = *self;
        let verdict = next.follow(side, kind, segment);
        if verdict == Verdict::Follows {
            *self = next;
            self.state = STATES.iter().find(|(name, _)| *name == becomes).expect("a state").1;
            self.simultaneous |= self.state == State::SynSent2;
            self.before = Before::Nothing;
        }
        verdict
    }

    fn judge_reset(&self, side: usize, segment: &Segment) -> Verdict {
        let (sender, receiver) = (&self.sides[side], &self.sides[1 - side]);
        if self.state == State::SynSent {
            return match (side, self.before) {
                (0, Before::Challenge(number)) if number == segment.sequence => Verdict::Ignored,
                (0, _) => Verdict::Follows,
                _ if segment.flags & ACK != 0 && self.acknowledges_the_syn(segment) => Verdict::Follows,
                _ => RESET,
            };
        }
        let Some(expected) = receiver.acknowledged.filter(|_| !self.picked_up) else { return Verdict::Follows };
        let exact = segment.sequence == expected || segment.sequence == sender.end;
        let old = after(expected, segment.sequence);
        if !exact && (self.state == State::Established || old) { RESET } else { Verdict::Follows }
    }

    /// Whether the numbers can be; and what is to be remembered of them.
    fn follow(&mut self, side: usize, kind: Kind, segment: &Segment) -> Verdict {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        let fresh = self.sides[side].window == 0;
        let is_syn = segment.flags & SYN != 0;
        if is_syn {
            let again = side == 0 && self.state == State::SynSent;
            let renewed = opening && (again || after(segment.end(), self.sides[side].end));
            if fresh || renewed {
                self.sides[side] = begin(segment);
                self.sides[side].most = segment.end().wrapping_add(low(self.sides[1 - side].window));
                if kind == Kind::Syn {
                    return Verdict::Follows;
                }
            }
        } else if fresh && !(kind == Kind::Rst && opening) {
            let window = (u64::from(segment.window) << self.scale(side)).max(1);
            let said = &mut self.sides[side];
            said.end = segment.end();
            said.most = said.end.wrapping_add(low(window));
            said.window = window;
        }
        let (sender, receiver) = (self.sides[side], self.sides[1 - side]);
        let (mut sequence, mut end) = (segment.sequence, segment.end());
        let acknowledges = segment.flags & ACK != 0 && !(kind == Kind::Rst && segment.acknowledgment == 0);
        let acknowledgment = if acknowledges { segment.acknowledgment } else { receiver.end };
        let sacked = match segment.sacked {
            Some(edge) if acknowledges && after(edge, acknowledgment) => edge,
            _ => acknowledgment,
        };
        if kind == Kind::Rst && (sequence == 0 || fresh) && self.state == State::SynSent {
            (sequence, end) = (sender.end, sender.end);
        }
        if !self.picked_up {
            let lag = low(sender.window.max(LAG));
            if after(sequence, sender.most)
                || after(sacked, receiver.end)
                || after(receiver.end.wrapping_sub(lag), sacked)
            {
                return WINDOW;
            }
            if receiver.window != 0 && after(sender.end.wrapping_sub(low(receiver.window)), end) {
                return if kind == Kind::Rst { RESET } else { Verdict::Ignored };
            }
        }
        let window = u64::from(segment.window) << if is_syn { 0 } else { self.scale(side) };
        let [sender, receiver] = if side == 0 {
            let [one, other] = &mut self.sides;
            [one, other]
        } else {
            let [other, one] = &mut self.sides;
            [one, other]
        };
        let overshot = after(end, sender.most).then(|| end.wrapping_sub(sender.most));
        if after(end, sender.end) {
            sender.end = end;
        }
        if acknowledges {
            let offered = low(window).wrapping_add(sacked.wrapping_sub(acknowledgment));
            sender.window = sender.window.max(offered.into());
            if sender.acknowledged.is_none_or(|known| after(acknowledgment, known)) {
                sender.acknowledged = Some(acknowledgment);
            }
            if let Some(overshot) = overshot.filter(|_| receiver.window != 0) {
                receiver.window = (receiver.window + u64::from(overshot)).min(u32::MAX.into());
            }
            let most = sacked.wrapping_add(low(window.max(1)));
            if after(most, receiver.most) {
                receiver.most = most;
            }
        }
        if self.picked_up {
            let receiver = &mut self.sides[1 - side];
            if after(acknowledgment, receiver.end) {
                receiver.end = acknowledgment;
            }
        }
        let sender = &mut self.sides[side];
        if segment.is_part && after(sender.most, sender.end) {
            sender.end = sender.most;
        }
        Verdict::Follows
    }
}
