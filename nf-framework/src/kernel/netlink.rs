//! The sockets by which the kernel is asked and speaks.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// What the kernel tells of by itself: `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`,
/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE` and `RTNLGRP_NEXTHOP` of
/// linux/rtnetlink.h. The last came with Linux 5.3.
const GROUPS: [u32; 6] = [1, 5, 7, 9, 11, 32];
/// A new next-hop object, which no route uses yet; what changes with one that is replaced, routes
/// say.
const RTM_NEWNEXTHOP: u16 = 104;
/// Bytes of messages that may wait for us, as far as the kernel allows: some thousand routes.
pub(super) const RECEIVE_BUFFER: i32 = 8 << 20;
/// The kernel writes up to this much at once when it is asked for everything (af_netlink.c).
const LARGEST: usize = 32 << 10;
/// How long the kernel may take for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of waiting for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    Something,
    Nothing,
    /// There was more than we were fast enough for, and some of it is lost.
    Overrun,
}

/// A socket that hears of changes.
#[derive(Debug)]
pub(super) struct Subscription {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Subscription {
    /// `patience` is how long [`receive`](Self::receive) waits, `room` how many bytes of messages
    /// may wait meanwhile.
    pub(super) fn new(patience: Duration, room: i32) -> io::Result<Self> {
        let socket = connect(patience)?;
        socket.set_rx_buf_sz(room)?;
        GROUPS.iter().try_for_each(|group| socket.add_membership(*group))?;
        Ok(Self { socket, buffer: vec![0; LARGEST] })
    }

    /// Waits for one datagram, and gives its messages with the flags of their headers; `None` for
    /// one that cannot be read, as that a next-hop object has gone.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Option<&RouteNetlinkMessage>, u16)) -> io::Result<Received> {
        let received = match self.socket.recv(&mut &mut self.buffer[..], 0) {
            Ok(received) => received,
            Err(error) if is_nothing(&error) => return Ok(Received::Nothing),
            Err(error) if is_overrun(&error) => return Ok(Received::Overrun),
            Err(error) => return Err(error),
        };
        for message in Messages(self.buffer.get(..received).unwrap_or_default()) {
            match message {
                Ok(NetlinkMessage { header, payload: NetlinkPayload::InnerMessage(inner), .. }) => {
                    each(Some(&inner), header.flags);
                }
                Ok(_) | Err(RTM_NEWNEXTHOP) => {}
                Err(_) => each(None, 0),
            }
        }
        Ok(Received::Something)
    }
}

/// Asks for everything of a kind. False if something changed meanwhile, so that the answer may
/// have what never was at one time. What cannot be read is left out.
pub(super) fn dump(request: RouteNetlinkMessage, mut each: impl FnMut(&RouteNetlinkMessage)) -> io::Result<bool> {
    let socket = connect(PATIENCE)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let (mut buffer, mut is_consistent) = (vec![0; LARGEST], true);
    loop {
        let received = match socket.recv(&mut &mut buffer[..], 0) {
            Err(error) if is_nothing(&error) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for ten seconds"));
            }
            received => received?,
        };
        for message in Messages(buffer.get(..received).unwrap_or_default()).flatten() {
            is_consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match &message.payload {
                NetlinkPayload::InnerMessage(answer) => each(answer),
                NetlinkPayload::Done(_) => return Ok(is_consistent),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

/// The messages of a datagram, or the types of those that cannot be read.
struct Messages<'a>(&'a [u8]);

impl Iterator for Messages<'_> {
    type Item = Result<NetlinkMessage<RouteNetlinkMessage>, u16>;

    fn next(&mut self) -> Option<Self::Item> {
        // Length and type are the first fields (struct nlmsghdr, 16 octets), and messages begin at
        // multiples of four octets.
        let [a, b, c, d, e, f] = *self.0.first_chunk()?;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let message = self.0.get(..length).filter(|message| message.len() >= 16)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(message).map_err(|error| {
            log::debug!("cannot read what the kernel said: {error}");
            u16::from_ne_bytes([e, f])
        }))
    }
}

/// A socket that only the kernel can send to.
fn connect(patience: Duration) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // The standard library sets this of any socket, once it takes it for one of its own; a
    // duplicate shares it with the original.
    UnixDatagram::from(socket.as_fd().try_clone_to_owned()?).set_read_timeout(Some(patience))?;
    Ok(socket)
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Netlink's way to say that the receive buffer was full: netlink(7).
fn is_overrun(error: &io::Error) -> bool {
    const ENOBUFS: i32 = 105;
    error.raw_os_error() == Some(ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteMessage;
    use proptest::prelude::*;

    fn serialized(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_message_that_cannot_be_read_does_not_hide_those_behind_it() {
        let sound = serialized(RouteNetlinkMessage::NewRoute(RouteMessage::default()));
        let mut broken = sound.clone();
        broken.truncate(17);
        broken[0] = 17;
        broken.extend([0; 3]);
        let both = [&broken[..], &sound].concat();
        let read = |datagram: &[u8]| Messages(datagram).map(|message| message.map(drop)).collect::<Vec<_>>();
        let new_route = 24;
        assert_eq!(read(&both), [Err(new_route), Ok(())]);
        assert_eq!(read(&[&sound[..], &sound, &sound[..20]].concat()), [Ok(()), Ok(())]);
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..64) {
            let mut datagram = serialized(RouteNetlinkMessage::NewRoute(RouteMessage::default()));
            let (kind, at) = (bytes.first().copied().unwrap_or_default(), at % datagram.len());
            datagram[at] ^= kind;
            datagram.extend(&bytes);
            prop_assert!(Messages(&datagram).count() <= datagram.len() / 16);
        }
    }
}
