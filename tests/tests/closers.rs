//! Each layer of the boundary counts: without it, or without the two that stop the same, a way
//! out delivers that the whole boundary blocks.

use anyhow::{Context, Result, ensure};
use egress_tests::{
    probe::{self, Vector},
    stage::Stage,
    vectors::{Wrap, delivered},
    world::World,
};

#[test]
fn the_packet_hook() -> Result<()> {
    gets_out_without("packet", &["udp4-connected", "detour-pktinfo4"])?;
    // Whoever calls in without a rule is not heard in the first place.
    gets_out_without("packet,ingress", &["accept-reply"])?;
    // Late starts are not among them: they need a name, and the DNS proxy answers nobody whose
    // packets this hook did not mark.
    gets_out_without("packet", &["own-backlog", "own-fastopen"])
}

#[test]
fn the_hook_for_packets_on_their_way_in() -> Result<()> {
    gets_out_without("ingress", &["answer4", "answer6", "answer-no-room4"])
}

#[test]
fn the_hooks_of_connect() -> Result<()> {
    gets_out_without("connect,packet", &["tcp4", "tcp6", "tcp-fastopen"])?;
    // The packet hook refuses these as well, and copies are made all the same.
    let copies = ["copy-broadcast-connected", "copy-group-connected"];
    gets_out_without("connect", &copies)
}

#[test]
fn the_hooks_of_sendmsg() -> Result<()> {
    gets_out_without("sendmsg,packet", &["udp4", "udp6", "udp-sendmmsg"])?;
    gets_out_without("sendmsg", &["copy-broadcast", "copy-group"])
}

#[test]
fn the_hook_of_socket() -> Result<()> {
    gets_out_without("socket,packet", &["udplite4-connected", "ping4"])
}

#[test]
fn the_hook_of_setsockopt() -> Result<()> {
    gets_out_without("sockopt", &["membership4", "membership6"])
}

#[test]
fn the_hooks_of_unix_sockets() -> Result<()> {
    gets_out_without("unix", &["unix-stream", "unix-dgram", "unix-seqpacket"])
}

#[test]
fn the_refusals_of_the_door() -> Result<()> {
    gets_out_without("door", &["dns-label", "dns-tcp"])
}

#[test]
fn what_the_door_leaves_out_of_answers() -> Result<()> {
    gets_out_without("rebinding", &["rebind-loopback", "rebind-private"])
}

#[test]
fn the_name_in_tls() -> Result<()> {
    let vectors = ["shared-address-sni", "sni-none", "plain-http"];
    gets_out_without("sni", &vectors)
}

#[test]
fn closed_descriptors() -> Result<()> {
    gets_out_without("descriptors", &["inherited-tcp", "inherited-udp"])
}

#[test]
fn capabilities_given_up() -> Result<()> {
    gets_out_for_root_without("capabilities,seccomp", &["packet", "packet-old"])
}

#[test]
fn the_system_call_filter() -> Result<()> {
    gets_out_without("seccomp", &["keyring", "netlink-user"])
}

#[test]
fn landlock() -> Result<()> {
    gets_out_without("landlock", &["unix-abstract"])
}

#[test]
fn landlock_beside_the_pid_namespace() -> Result<()> {
    let vectors = ["proc-mem", "proc-fd-pipe", "signal", "signal-pidfd"];
    gets_out_without("landlock,processes", &vectors)
}

#[test]
fn the_pid_namespace() -> Result<()> {
    let vectors = ["limits", "priority", "scheduling", "process-list"];
    gets_out_without("processes", &vectors)
}

#[test]
fn the_small_dev() -> Result<()> {
    gets_out_without("devices", &["tun-of-the-user", "device-elsewhere"])
}

#[test]
fn the_system_call_filter_beside_landlock_and_the_pid_namespace() -> Result<()> {
    let layers = "seccomp,landlock,processes";
    gets_out_without(layers, &["ptrace", "pidfd-getfd"])
}

#[test]
fn the_session_beside_the_system_call_filter() -> Result<()> {
    gets_out_without("session,seccomp", &["terminal-input"])
}

#[test]
fn the_ipc_namespace() -> Result<()> {
    gets_out_without("ipc", &["system-v-queue", "posix-queue"])
}

#[test]
fn the_mounts_of_a_root_connector() -> Result<()> {
    gets_out_for_root_without("mounts", &["cgroup-root", "core-pattern", "sysctl-net"])
}

/// Tries the vectors as an ordinary user with the whole boundary and without some layers.
fn gets_out_without(layers: &str, names: &[&'static str]) -> Result<()> {
    compare(layers, names, false)
}

/// The same as root.
fn gets_out_for_root_without(layers: &str, names: &[&'static str]) -> Result<()> {
    compare(layers, names, true)
}

fn compare(layers: &str, names: &[&'static str], as_root: bool) -> Result<()> {
    let vectors = names.iter().map(|name| {
        let families = probe::FAMILIES.iter();
        let mut all = families.flat_map(|family| {
            let pair = |vector: &'static Vector| (family.name, vector);
            family.vectors.iter().map(pair)
        });
        let found = all.find(|(_, vector)| vector.name == *name);
        found.with_context(|| format!("no vector {name}"))
    });
    let vectors: Vec<_> = vectors.collect::<Result<_>>()?;
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    let out = delivered(&world, &stage, &Wrap::Agent, &vectors, as_root)?;
    ensure!(out.is_empty(), "the whole boundary lets {out:?} through");
    let without = Wrap::Without(layers.to_owned());
    let out = delivered(&world, &stage, &without, &vectors, as_root)?;
    let kept: Vec<_> = names.iter().filter(|name| !out.contains(*name)).collect();
    ensure!(
        kept.is_empty(),
        "without {layers} these should get out, and do not: {kept:?}"
    );
    Ok(())
}
