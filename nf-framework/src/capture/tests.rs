use super::*;

/// A file of either format, built from words in one byte order.
struct File {
    octets: Vec<u8>,
    big_endian: bool,
}

impl File {
    fn new(big_endian: bool) -> Self {
        Self { octets: Vec::new(), big_endian }
    }

    fn u16(mut self, value: u16) -> Self {
        self.octets.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.octets.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn words(self, words: &[u32]) -> Self {
        words.iter().fold(self, |file, word| file.u32(*word))
    }

    fn octets(mut self, octets: &[u8]) -> Self {
        self.octets.extend(octets);
        self
    }

    fn pcap(self, magic: u32, link_type: u32) -> Self {
        self.u32(magic).u16(2).u16(4).words(&[0, 0, 65535, link_type])
    }

    fn block(self, block_type: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let mut inner = body(Self::new(self.big_endian)).octets;
        inner.resize(inner.len().next_multiple_of(4), 0);
        let length = u32::try_from(inner.len() + 12).unwrap();
        self.u32(block_type).u32(length).octets(&inner).u32(length)
    }

    fn section(self) -> Self {
        self.block(0x0a0d_0d0a, |block| block.u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX))
    }

    fn interface(self, link_type: u16, snap_length: u32, options: impl FnOnce(Self) -> Self) -> Self {
        self.block(1, |block| options(block.u16(link_type).u16(0).u32(snap_length)))
    }
}

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;

/// Time in nanoseconds, link type, interface, data and length of each packet, and what went wrong in the end.
type Read = (Vec<(u128, u16, u32, Vec<u8>, usize)>, Option<String>);

fn read(octets: &[u8]) -> Read {
    // A file may come in pieces of any size.
    for piece in [1, 3, 1 << 20] {
        let (found, all) = (read_in_pieces(octets, piece), read_in_pieces(octets, usize::MAX));
        assert_eq!(found, all, "in pieces of {piece}");
    }
    read_in_pieces(octets, usize::MAX)
}

fn read_in_pieces(octets: &[u8], piece: usize) -> Read {
    struct Pieces<'a>(&'a [u8], usize);
    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let most = into.len().min(self.1);
            std::io::Read::read(&mut self.0, &mut into[..most])
        }
    }
    let mut packets = Vec::new();
    let mut reader = match CaptureReader::new(Pieces(octets, piece)) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error.to_string())),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(CapturedPacket { time, link_type, interface, data, length, .. })) => {
                packets.push((time.as_nanos(), link_type.0, interface, data.to_vec(), length));
            }
            Ok(None) => {
                assert_eq!(reader.position(), octets.len() as u64);
                return (packets, None);
            }
            Err(error) => {
                assert!(matches!(reader.next_packet(), Ok(None)), "nothing behind an error");
                return (packets, Some(error.to_string()));
            }
        }
    }
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for (magic, nanoseconds) in [(MICRO, 7_000_005_000), (NANO, 7_000_000_005)] {
        for big_endian in [false, true] {
            // The upper bits of the link type say of a check sequence.
            let file = File::new(big_endian).pcap(magic, 0x1400_0001);
            let file = file.words(&[7, 5, 3, 3]).octets(&[1, 2, 3]).words(&[8, 0, 1, 60]).octets(&[9]);
            let expected = vec![(nanoseconds, 1, 0, vec![1, 2, 3], 3), (8_000_000_000, 1, 0, vec![9], 60)];
            assert_eq!(read(&file.octets), (expected, None), "{magic:x} {big_endian}");
        }
    }
    let old = File::new(false).pcap(0xa1b2_cd34, 1).words(&[7, 5, 3, 3, 0, 0]).octets(&[1, 2, 3]);
    assert_eq!(read(&old.octets).0, vec![(7_000_005_000, 1, 0, vec![1, 2, 3], 3)]);
}

#[test]
fn pcapng_is_read_with_its_sections_interfaces_and_resolutions() {
    let packet = |file: File, interface, low: u32| {
        file.block(6, |block| block.words(&[interface, 0, low, 3, 9]).octets(&[1, 2, 3]))
    };
    let mut file = Vec::new();
    for big_endian in [false, true] {
        let section = File::new(big_endian).section();
        let section = section.interface(1, 0, |options| options.u16(2).u16(1).octets(b"a\0\0\0").u32(0));
        // Milliseconds, and a time zone of an hour.
        let section = section.interface(113, 2, |options| {
            let hour: [u8; 8] = if big_endian { 3600_i64.to_be_bytes() } else { 3600_i64.to_le_bytes() };
            options.u16(9).u16(1).octets(&[3, 0, 0, 0]).u16(14).u16(8).octets(&hour)
        });
        let section = packet(packet(section, 0, 5), 1, 5);
        // A block that says nothing here, then a simple and an old packet.
        let section = section.block(5, |block| block.words(&[1, 2, 3]));
        let section = section.block(3, |block| block.u32(2).octets(&[7, 8]));
        let section = section.block(2, |block| block.u16(1).u16(0).words(&[0, 2, 1, 1]).octets(&[4]));
        file.extend(section.octets);
    }
    let of_section = [
        (5_000, 1, 0, vec![1, 2, 3], 9),
        (3_600_005_000_000, 113, 1, vec![1, 2, 3], 9),
        (3_600_005_000_000, 1, 0, vec![7, 8], 2),
        (3_600_002_000_000, 113, 1, vec![4], 1),
    ];
    assert_eq!(read(&file), ([of_section.clone(), of_section].concat(), None));
}

#[test]
fn time_resolutions_may_be_powers_of_two_and_more_than_there_is_room_for() {
    for (resolution, expected) in
        [(0x80_u8, 5_000_000_000), (0x81, 2_500_000_000), (0, 5_000_000_000), (12, 0), (127, 0)]
    {
        let file = File::new(false).section();
        let file = file.interface(1, 0, |options| options.u16(9).u16(1).octets(&[resolution, 0, 0, 0]));
        let file = file.block(6, |block| block.words(&[0, 0, 5, 0, 0]));
        assert_eq!(read(&file.octets).0[0].0, expected, "{resolution:x}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_read_up_to_there_and_the_error_says_where() {
    let pcap = || File::new(false).pcap(MICRO, 1).words(&[7, 5, 3, 3]).octets(&[1, 2, 3]);
    let pcapng = || File::new(false).section().interface(1, 0, |options| options);
    let with_packet = || pcapng().block(6, |block| block.words(&[0, 0, 5, 3, 3]).octets(&[1, 2, 3]));
    let cut = |file: File, by: usize| file.octets[..file.octets.len() - by].to_vec();
    for (name, file, packets, error) in [
        ("nothing", Vec::new(), 0, "neither a pcap nor a pcapng file: it is empty"),
        ("text", b"hello".to_vec(), 0, "neither a pcap nor a pcapng file: it begins with the octets 68 65 6c 6c"),
        (
            "half a header",
            cut(File::new(true).pcap(NANO, 1), 1),
            0,
            "damaged at byte 0: the file ends there, 1 bytes too early",
        ),
        ("half a packet", cut(pcap(), 2), 0, "damaged at byte 24: the file ends there, 2 bytes too early"),
        (
            "half a packet header",
            pcap().u32(1).octets,
            1,
            "damaged at byte 43: the file ends there, 12 bytes too early",
        ),
        (
            "a packet longer than any",
            pcap().words(&[1, 1, u32::MAX, 1]).octets,
            1,
            "damaged at byte 43: what begins there cannot have 4294967295 bytes",
        ),
        ("half a block", cut(with_packet(), 1), 0, "damaged at byte 48: the file ends there, 1 bytes too early"),
        (
            "a block of nothing",
            with_packet().words(&[6, 8, 8]).octets,
            1,
            "damaged at byte 84: what begins there cannot have 8 bytes",
        ),
        (
            "lengths that differ",
            with_packet().words(&[5, 16, 0, 20]).octets,
            1,
            "damaged at byte 84: what begins there cannot have 16 bytes",
        ),
        (
            "a packet longer than its block",
            pcapng().block(6, |block| block.words(&[0, 0, 5, 4, 4]).octets(&[])).octets,
            0,
            "damaged at byte 48: what begins there cannot have 32 bytes",
        ),
        (
            "a packet without its fields",
            pcapng().block(6, |block| block.words(&[0, 0])).octets,
            0,
            "damaged at byte 48: what begins there cannot have 20 bytes",
        ),
        (
            "another interface",
            pcapng().block(6, |block| block.words(&[1, 0, 5, 0, 0])).octets,
            0,
            "damaged at byte 48: the packet there is of interface 1, which is not described before it",
        ),
        (
            "a section in no byte order",
            File::new(false).block(0x0a0d_0d0a, |block| block.words(&[1, 2, 3, 4])).octets,
            0,
            "damaged at byte 0: the section that begins there does not say in which byte order it is",
        ),
    ] {
        let (found, said) = read(&file);
        assert_eq!((found.len(), said.as_deref()), (packets, Some(error)), "{name}");
    }
}

#[test]
fn no_octets_make_the_reader_panic() {
    let file = File::new(false).section().interface(1, 0, |options| options.u16(9).u16(1).octets(&[6, 0, 0, 0]).u32(0));
    let file =
        file.block(6, |block| block.words(&[0, 0, 5, 3, 3]).octets(&[1, 2, 3, 0]).u16(1).u16(1).octets(b"c\0\0\0"));
    let pcap = File::new(true).pcap(MICRO, 1).words(&[7, 5, 3, 3]).octets(&[1, 2, 3]);
    for good in [file.octets, pcap.octets] {
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                read_in_pieces(&bad, 7);
            }
        }
    }
}

#[test]
fn what_is_written_is_read_again_with_its_comments() {
    let long = "ü".repeat(40_000);
    let packets = [
        CapturedPacket::new(Duration::new(1_700_000_000, 123_456_789), &[1; 61]),
        CapturedPacket { comment: Some("policy: a rule"), interface: 1, ..CapturedPacket::new(Duration::ZERO, &[]) },
        CapturedPacket { length: 1500, ..CapturedPacket::new(Duration::MAX, &[2; 64]) },
        CapturedPacket { comment: Some(&long), ..CapturedPacket::new(Duration::from_secs(1), &[3; 3]) },
    ];
    let mut file = Vec::new();
    let mut writer = CaptureWriter::new(&mut file, &["a", "another interface"]).unwrap();
    packets.iter().for_each(|packet| writer.write(packet).unwrap());
    writer.finish().unwrap();
    let mut reader = CaptureReader::new(&file[..]).unwrap();
    for packet in packets {
        let time = packet.time.min(Duration::from_nanos(u64::MAX));
        let comment = packet.comment.map(|comment| if comment.len() > 65535 { &comment[..65534] } else { comment });
        assert_eq!(reader.next_packet().unwrap(), Some(CapturedPacket { time, comment, ..packet }));
    }
    assert_eq!(reader.next_packet().unwrap(), None);
}

#[test]
fn link_types_have_names_for_people() {
    let said = [1, 105, 276, 147].map(|number| LinkType(number).to_string());
    assert_eq!(said, ["Ethernet (1)", "IEEE 802.11 (105)", "Linux cooked (276)", "number 147"]);
}
