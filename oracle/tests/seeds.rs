//! Every committed seed, and thousands of damaged copies of each, through its target: what
//! the fuzzer starts from, on stable Rust and in every test run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use egress_oracle::{
    draw::{Draw, Random},
    target::{self, Target},
};

/// Damaged copies of each seed.
const COPIES: u64 = 150;

#[test]
fn every_seed_holds() {
    for (name, run) in target::ALL {
        let seeds = seeds(name);
        assert!(seeds.len() >= 4, "{name} has {} seeds", seeds.len());
        for (path, bytes) in seeds {
            assert!(bytes.len() <= 8192, "{} is large", path.display());
            run(&bytes);
        }
    }
}

#[test]
fn damaged_seeds_hold() {
    for target in target::ALL {
        damaged(target);
    }
}

#[test]
fn every_target_is_fuzzed() {
    let fuzz = fuzz();
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the fuzzer's manifest");
    let named: BTreeSet<String> = target::ALL.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(&fuzz.join("seeds")), named);
    assert_eq!(names(&fuzz.join("targets")), named);
    for name in named {
        let line = format!("path = \"targets/{name}.rs\"");
        assert!(manifest.contains(&line), "{name} is not built");
    }
}

/// Each copy depends on the seed's length and its own number alone, so a failure repeats.
fn damaged((name, run): Target) {
    for (path, bytes) in seeds(name) {
        for copy in 0..COPIES {
            let mut draw = Random(bytes.len() as u64 ^ copy << 32);
            let mut bytes = bytes.clone();
            for _ in 0..=draw.below(4) {
                damage(&mut draw, &mut bytes);
            }
            // Said before a panic, whose message may not name the bytes.
            println!("{} copy {copy}", path.display());
            run(&bytes);
        }
    }
}

fn damage(draw: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(draw.bits8());
        return;
    }
    let at = draw.bits32() as usize % bytes.len();
    match draw.below(6) {
        0 => bytes[at] = draw.bits8(),
        1 => bytes[at] ^= 1 << draw.below(8),
        2 => bytes[at] = draw.pick(&[0, 1, 0x7f, 0x80, 0xff, b'\n', b'*', b'/']),
        3 => bytes.truncate(at),
        4 => bytes.insert(at, draw.bits8()),
        _ => {
            let end = (at + 1 + draw.below(32)).min(bytes.len());
            let piece: Vec<u8> = bytes[at..end].to_vec();
            let to = draw.bits32() as usize % bytes.len();
            drop(bytes.splice(to..to, piece));
        }
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz().join("seeds").join(name);
    let mut paths: Vec<PathBuf> = entries(&folder);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("a seed can be read");
            (path, bytes)
        })
        .collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into());
    entries(folder).iter().filter_map(stem).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the fuzzer");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}
