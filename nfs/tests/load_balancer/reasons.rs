//! Every reason for which the load balancer drops, provoked; the others are of modes that translate.

use super::bench::{R, SYN, VIP, backend, dropped, from_client, from_outside, packet, service, with_balancer};
use nf_framework::testing::Frame;
use nfs::load_balancer::Order;
use std::net::Ipv4Addr;

#[test]
fn every_reason_has_something_that_provokes_it() {
    let own = Ipv4Addr::new(10, 0, 0, 200);
    let text = format!("probe_addresses = [\"{own}\"]\n{}", service("ipip", "on_backend_down = \"drop\"", &[11]));
    with_balancer(&text, move |bench| {
        let answer = packet(&Frame::new().ipv4(backend(11), R).udp(1, 2));
        let mut broken = from_client().icmp_echo_request(1, 2);
        broken = broken.payload(&[1]);
        let mut broken = broken.build();
        *broken.last_mut().unwrap() ^= 1;
        for (frame, reason) in [
            (from_client().tcp(1000, 81).build(), "lb-no-service"),
            (from_client().udp(1000, 80).build(), "lb-no-service"),
            (from_client().protocol(132).payload(&[0; 9]).build(), "lb-no-service"),
            (from_client().tcp(1000, 80).payload(&[0; 1460]).build(), "lb-too-big"),
            (from_outside(R, VIP).icmp(3, 1, [0; 4]).payload(&answer).build(), "lb-icmp"),
            (broken, "lb-icmp-checksum"),
            (from_outside(R, own).tcp(80, 60000).build(), "lb-no-connection"),
        ] {
            let outcome = bench.burst(&[frame]);
            assert_eq!(dropped(&outcome), reason, "{outcome:?}");
            if reason == "lb-no-service" {
                let told = &outcome.outside[0];
                assert_eq!((&told[26..30], &told[34..36]), (&VIP.octets()[..], &[3, 3][..]), "it says so");
            }
        }
        bench.connect(1000..1001);
        bench.command(|instance| instance.order("web", "10.0.0.11", Order::Down)).unwrap();
        assert!(bench.tend());
        assert_eq!(dropped(&bench.client(&from_client().tcp(1000, 80))), "lb-backend-down");
        assert_eq!(dropped(&bench.client(&from_client().tcp(1001, 80).flags(SYN))), "lb-no-backend");
    });
}
