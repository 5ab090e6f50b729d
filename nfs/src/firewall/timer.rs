//! What a connection is timed by.

use super::config::TimeoutsConfig;

/// Which of the configured times a connection has from its last packet on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Timer {
    TcpSynSent,
    TcpSynReceived,
    TcpEstablished,
    TcpFinWait,
    TcpCloseWait,
    TcpLastAck,
    TcpTimeWait,
    TcpClose,
    Udp,
    UdpAnswered,
    Icmp,
    Other,
    OtherAnswered,
}

impl Timer {
    pub(super) const COUNT: usize = 13;

    /// The keys of `[firewall.timeouts]` and what they are, in this order.
    pub(super) fn keys(config: &TimeoutsConfig) -> [(&'static str, u32); Self::COUNT] {
        [
            ("tcp_syn_sent", config.tcp_syn_sent),
            ("tcp_syn_received", config.tcp_syn_received),
            ("tcp_established", config.tcp_established),
            ("tcp_fin_wait", config.tcp_fin_wait),
            ("tcp_close_wait", config.tcp_close_wait),
            ("tcp_last_ack", config.tcp_last_ack),
            ("tcp_time_wait", config.tcp_time_wait),
            ("tcp_close", config.tcp_close),
            ("udp", config.udp),
            ("udp_answered", config.udp_answered),
            ("icmp", config.icmp),
            ("other", config.other),
            ("other_answered", config.other_answered),
        ]
    }
}
