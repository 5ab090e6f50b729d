//! The server that a QUIC packet names: the plaintext connection identifiers of QUIC-LB
//! (draft-ietf-quic-load-balancers) in the invariant part of QUIC's headers (RFC 8999).

use super::config::ServerId;

/// The server id that stands in the connection identifier of a UDP payload, of so many octets. None if there is none:
/// in the first packets of a client, who makes one up, and in those that say so themselves.
pub(super) fn server_id(payload: &[u8], length: usize) -> Option<ServerId> {
    const LONG: u8 = 0x80;
    let (first, rest) = payload.split_first()?;
    let identifier = if first & LONG == 0 {
        rest
    } else {
        // Behind the version, whose types are QUIC version 1's and 2's: those before the client knows what the server
        // calls itself have one of the client's own.
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let is_clients = match (u32::from_be_bytes(*version), (first & 0x30) >> 4) {
            (1, packet_type) => packet_type < 2,
            (0x6b33_43cf, packet_type) => packet_type == 1 || packet_type == 2,
            _ => true,
        };
        if is_clients {
            return None;
        }
        let (count, rest) = rest.split_first()?;
        rest.get(..usize::from(*count))?
    };
    let (first, rest) = identifier.split_first()?;
    // The codepoint that says that nobody is named.
    if first >> 5 == 7 {
        return None;
    }
    ServerId::new(rest.get(..length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_where_the_client_knows_it() {
        let id = ServerId::new(&[0xaa, 0xbb]);
        let long = |first: u8, version: u32, identifier: &[u8]| {
            let count = u8::try_from(identifier.len()).unwrap();
            [&[first][..], &version.to_be_bytes(), &[count], identifier, &[0]].concat()
        };
        for (what, payload, expected) in [
            ("a short header", vec![0x40, 0x07, 0xaa, 0xbb, 1, 2, 3], id),
            ("one that names nobody", vec![0x40, 0xe7, 0xaa, 0xbb, 1, 2, 3], None),
            ("one that is too short", vec![0x40, 0x07, 0xaa], None),
            ("a short header alone", vec![0x40], None),
            ("nothing", vec![], None),
            ("Initial", long(0xc0, 1, &[7, 0xaa, 0xbb, 1]), None),
            ("0-RTT", long(0xd0, 1, &[7, 0xaa, 0xbb, 1]), None),
            ("Handshake", long(0xe0, 1, &[7, 0xaa, 0xbb, 1]), id),
            ("Handshake of another name", long(0xe0, 1, &[7, 0xaa, 0xbc, 1]), ServerId::new(&[0xaa, 0xbc])),
            ("Handshake with less of a name", long(0xe0, 1, &[7, 0xaa]), None),
            ("Handshake without a name", long(0xe0, 1, &[]), None),
            ("Initial of version 2", long(0xd0, 0x6b33_43cf, &[7, 0xaa, 0xbb, 1]), None),
            ("0-RTT of version 2", long(0xe0, 0x6b33_43cf, &[7, 0xaa, 0xbb, 1]), None),
            ("Handshake of version 2", long(0xf0, 0x6b33_43cf, &[7, 0xaa, 0xbb, 1]), id),
            ("another version", long(0xe0, 0xabcd, &[7, 0xaa, 0xbb, 1]), None),
            ("a name that is cut short", long(0xe0, 1, &[7, 0xaa, 0xbb, 1])[..8].to_vec(), None),
        ] {
            assert_eq!(server_id(&payload, 2), expected, "{what}");
        }
    }
}
