//! Ways out, family by family, as an unprivileged user and as root. `probe list` names them;
//! `bypass-suite` tries the same against any other tool.

use anyhow::{Result, ensure};
use egress_tests::{
    probe,
    vectors::{try_all, try_family},
};

#[test]
fn streams() -> Result<()> {
    try_family("streams")
}

#[test]
fn datagrams() -> Result<()> {
    try_family("datagrams")
}

#[test]
fn the_declared_address_by_another_way() -> Result<()> {
    try_family("detours")
}

#[test]
fn other_sockets() -> Result<()> {
    try_family("other-sockets")
}

#[test]
fn packet_sockets() -> Result<()> {
    try_family("packet-sockets")
}

#[test]
fn io_uring() -> Result<()> {
    try_family("io-uring")
}

#[test]
fn foreign_binary_interfaces() -> Result<()> {
    try_family("foreign-abis")
}

#[test]
fn through_the_name_service() -> Result<()> {
    try_family("names")
}

#[test]
fn other_names_in_tls() -> Result<()> {
    try_family("tls-names")
}

#[test]
fn other_forms_of_a_hello() -> Result<()> {
    try_family("tls-forms")
}

#[test]
fn hellos_by_other_calls() -> Result<()> {
    try_family("tls-segments")
}

#[test]
fn second_hellos() -> Result<()> {
    try_family("tls-second-hellos")
}

#[test]
fn hellos_in_shared_pages() -> Result<()> {
    try_family("tls-shared-pages")
}

#[test]
fn through_the_same_host() -> Result<()> {
    try_family("loopback")
}

#[test]
fn through_ports_of_its_own() -> Result<()> {
    try_family("own-ports")
}

#[test]
fn copies_for_listeners_on_this_host() -> Result<()> {
    try_family("copies")
}

#[test]
fn started_after_its_time() -> Result<()> {
    try_family("late-starts")
}

#[test]
fn answers_to_callers() -> Result<()> {
    try_family("callers")
}

#[test]
fn unix_sockets() -> Result<()> {
    try_family("unix-sockets")
}

#[test]
fn descriptors_from_outside() -> Result<()> {
    try_family("descriptors")
}

#[test]
fn processes_of_the_same_user() -> Result<()> {
    try_family("neighbours")
}

#[test]
fn processes_by_their_number() -> Result<()> {
    try_family("processes")
}

#[test]
fn other_ways_between_processes() -> Result<()> {
    try_family("ipc")
}

#[test]
fn cgroups_and_namespaces() -> Result<()> {
    try_family("cgroups-and-namespaces")
}

#[test]
fn controls_of_the_host() -> Result<()> {
    try_family("host-controls")
}

#[test]
#[ignore = "for cargo xtask vm: what the others try, in as few starts as there can be"]
fn every_way_out_as_an_ordinary_user() -> Result<()> {
    try_all(false)
}

#[test]
#[ignore = "for cargo xtask vm: what the others try, in as few starts as there can be"]
fn every_way_out_as_root() -> Result<()> {
    try_all(true)
}

#[test]
fn every_family_has_a_test_and_every_vector_a_name_of_its_own() -> Result<()> {
    let source = include_str!("bypass.rs");
    for family in probe::FAMILIES {
        let call = format!("try_family(\"{}\")", family.name);
        ensure!(source.contains(&call), "{} is not tried", family.name);
    }
    let mut names: Vec<&str> = probe::vectors().map(|vector| vector.name).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    ensure!(twice.is_none(), "two vectors have one name: {twice:?}");
    Ok(())
}
