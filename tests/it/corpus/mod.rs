//! The bodies of the fuzz targets on stable Rust: on the files of `fuzz/corpus` and
//! `fuzz/regressions`, on changed copies of them, and on chance.
//!
//! `OTPROXY_BLESS=1 cargo test --test it corpus` writes the seeds into `fuzz/corpus`.

#[path = "../../../fuzz/bodies/mod.rs"]
mod bodies;
mod seeds;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

/// Changed copies of each seed.
const COPIES: u64 = 40;

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> seeds::Seeds,
    /// Files in `fuzz/corpus` and in `fuzz/regressions`.
    files: (usize, usize),
    /// Other folders with files to start from.
    folders: &'static [&'static str],
}

const TARGETS: [Target; 11] = [
    Target {
        name: "config",
        run: bodies::config::run,
        seeds: seeds::config,
        files: (8, 0),
        folders: &["configs", "tests/config/valid", "tests/config/invalid"],
    },
    Target { name: "expect", run: bodies::expect::run, seeds: seeds::expect, files: (14, 0), folders: &[] },
    Target { name: "frames", run: bodies::frames::run, seeds: seeds::frames, files: (43, 0), folders: &[] },
    Target {
        name: "game_packet",
        run: bodies::game_packet::run,
        seeds: seeds::game_packet,
        files: (34, 0),
        folders: &[],
    },
    Target { name: "http_login", run: bodies::http_login::run, seeds: seeds::http_login, files: (23, 0), folders: &[] },
    Target { name: "login", run: bodies::login::run, seeds: seeds::login, files: (20, 0), folders: &[] },
    Target { name: "player", run: bodies::player::run, seeds: seeds::player, files: (17, 0), folders: &[] },
    Target {
        name: "proxy_header",
        run: bodies::proxy_header::run,
        seeds: seeds::proxy_header,
        files: (31, 0),
        folders: &[],
    },
    Target {
        name: "session_machine",
        run: bodies::session_machine::run,
        seeds: seeds::session_machine,
        files: (42, 1),
        folders: &[],
    },
    Target { name: "status", run: bodies::status::run, seeds: seeds::status, files: (21, 0), folders: &[] },
    Target { name: "trunk", run: bodies::trunk::run, seeds: seeds::trunk, files: (44, 0), folders: &[] },
];

/// Where the files of a target are, for `kind` of `corpus` or `regressions`.
fn folder(kind: &str, target: &Target) -> PathBuf {
    repository().join("fuzz").join(kind).join(target.name)
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, by name.
fn files(folder: PathBuf) -> BTreeMap<String, Vec<u8>> {
    // Without a file there is no folder.
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("a readable folder"));
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect()
}

/// Runs a target; where it panics, says on what.
fn run(target: &Target, what: &str, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
        eprintln!("{}, {what}: {}", target.name, bytes.escape_ascii());
        resume_unwind(panic);
    }
}

#[test]
fn the_corpora_are_the_seeds() {
    for target in &TARGETS {
        let seeds: BTreeMap<_, _> = (target.seeds)().into_iter().collect();
        if std::env::var_os("OTPROXY_BLESS").is_some() {
            let folder = folder("corpus", target);
            fs::remove_dir_all(&folder).or_else(|error| if folder.exists() { Err(error) } else { Ok(()) }).unwrap();
            fs::create_dir_all(&folder).unwrap();
            seeds.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        }
        let files = files(folder("corpus", target));
        assert!(files.keys().eq(seeds.keys()), "{}: {:?}", target.name, files.keys());
        assert!(files == seeds, "{}: OTPROXY_BLESS=1 writes the seeds", target.name);
    }
}

#[test]
fn all_that_is_written_down_passes() {
    for target in &TARGETS {
        let (corpus, regressions) = (files(folder("corpus", target)), files(folder("regressions", target)));
        assert_eq!((corpus.len(), regressions.len()), target.files, "files of {}", target.name);
        for (name, bytes) in corpus.iter().chain(&regressions) {
            run(target, name, bytes);
        }
    }
}

#[test]
fn changed_copies_pass() {
    for target in &TARGETS {
        let mut files: Vec<_> = files(folder("corpus", target)).into_iter().collect();
        files.extend(target.folders.iter().flat_map(|folder| self::files(repository().join(folder))));
        for (index, (name, bytes)) in files.iter().enumerate() {
            for copy in 0..COPIES {
                let other = &files[(index + copy as usize) % files.len()].1;
                let changed = change(bytes, other, index as u64 * COPIES + copy);
                run(target, &format!("changed copy {copy} of {name}"), &changed);
            }
        }
    }
}

/// `bytes` with up to four changes that follow from `number`; some with a part of `other`.
fn change(bytes: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    let mut state = number;
    // SplitMix64, as good a way as any to have chance again.
    let mut chance = |most: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % (most as u64 + 1)) as usize
    };
    let mut changed = bytes.to_vec();
    for _ in 0..=chance(3) {
        let at = chance(changed.len());
        match chance(5) {
            0 => changed.truncate(at),
            1 => changed.insert(at, chance(255) as u8),
            2 => drop(changed.splice(at..(at + chance(8)).min(changed.len()), [])),
            3 => drop(changed.splice(at..at, other[chance(other.len())..].to_vec())),
            4 => changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance(7)),
            _ => changed.iter_mut().skip(at).take(1).for_each(|byte| *byte = chance(255) as u8),
        }
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn chance_passes(any in vec(any::<u8>(), 0..800), small in vec(small(), 0..500)) {
        for target in &TARGETS {
            (target.run)(&any);
            (target.run)(&small);
        }
    }
}

/// A byte that is an event, a link, a session or a short length more often than not.
fn small() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 0u8..17, 1 => any::<u8>()]
}
