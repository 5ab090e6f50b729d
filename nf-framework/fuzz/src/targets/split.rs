//! Fragmenting towards a smaller MTU.

use super::{Target, frames};
use nf_framework::split_ipv4;
use nf_framework::testing::lab;

pub(crate) const TARGET: Target = Target {
    name: "split",
    about: "the fragments of any packet fit, and hold its octets in order",
    seeds: || frames().iter().map(|frame| [&[0, 68], &frame.clone().build()[..]].concat()).collect(),
    run,
};

/// Two bytes of MTU, and a frame.
fn run(bytes: &[u8]) {
    let Some((&mtu, frame)) = bytes.split_first_chunk() else { return };
    let (mtu, frame) = (usize::from(u16::from_be_bytes(mtu)), frame.to_vec());
    lab(move |lab| {
        let mut packet = lab.pool.alloc().expect("a packet");
        if !packet.set_contents(&frame) {
            return;
        }
        let mut fragments = Vec::new();
        if split_ipv4(&packet, mtu, || lab.pool.alloc(), |fragment| fragments.push(fragment.data().to_vec())).is_err() {
            return;
        }
        // By the numbers that stand in the frames.
        let ethernet =
            14 + 4 * [12, 16].iter().take_while(|&&at| matches!(frame[at..at + 2], [0x81, 0] | [0x88, 0xa8])).count();
        let of = |frame: &[u8]| {
            let packet = &frame[ethernet..];
            let (header, total) =
                (usize::from(packet[0] & 15) * 4, usize::from(u16::from_be_bytes([packet[2], packet[3]])));
            let place = u16::from_be_bytes([packet[6], packet[7]]);
            (packet[header..total].to_vec(), total, place)
        };
        let (data, _, place) = of(&frame);
        let mut expected = place & 0x1fff;
        let mut together = Vec::new();
        for (number, fragment) in fragments.iter().enumerate() {
            let (data, total, place) = of(fragment);
            assert_eq!((total + ethernet, total <= mtu), (fragment.len(), true));
            assert_eq!(place & 0x1fff, expected & 0x1fff);
            let last = number + 1 == fragments.len();
            assert!(last || (place & 0x2000 != 0 && data.len() % 8 == 0));
            expected = expected.wrapping_add(u16::try_from(data.len() / 8).expect("short"));
            together.extend(data);
        }
        assert_eq!(together, data);
    });
}
