//! What the kernel answers about sockets.

use egress_agent::host::{netlink::Messages, records, sockets};

/// Total, bounded, and what is read stands in the bytes.
pub fn run(data: &[u8]) {
    let mut count = 0;
    for message in Messages(data) {
        count += 1;
        about_sockets(message.body);
    }
    assert!(count <= data.len() / 16);
    about_sockets(data);
}

fn about_sockets(body: &[u8]) {
    let stands = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    if let Some(cgroup) = sockets::cgroup_of(body) {
        assert!(stands(&cgroup.to_ne_bytes()));
    }
    let rule = records::record(body).and_then(records::rule);
    if let Some(rule) = rule {
        assert!(stands(&rule.to_ne_bytes()));
    }
    for (family, protocol) in [(2, 6), (10, 17)] {
        let socket = records::socket(family, protocol, rule, body);
        assert_eq!(socket.is_some(), body.len() >= 52);
        if let (Some(socket), Some(at)) = (socket, body.get(4..52)) {
            assert_eq!(socket.local_port.to_be_bytes(), at[0..2]);
            assert_eq!(socket.port.to_be_bytes(), at[2..4]);
            assert_eq!(socket.rule, rule);
        }
    }
}
