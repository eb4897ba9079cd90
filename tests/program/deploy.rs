//! `otproxy deploy`, with a stand-in for ssh that leads what runs on a host into a folder.
//!
//! `OTPROXY_BLESS=1 cargo test --test program deploy` writes the commands of a dry run into `tests/deploy`; read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use otproxy::deploy::{COMMAND_WITHIN, UNDO_AFTER, quoted};
use proptest::prelude::*;

use crate::common::folder::{Folder, assert_golden};
use crate::common::process::{failed, otproxy, text};

const HOSTS: [&str; 4] = ["198.51.100.7", "198.51.100.9", "2001-db8--7", "hidden"];
/// The calls of ssh that set up one host, and all of them with the doctor's, without those that close connections.
const OF_HOST: usize = 6;
const ALL: usize = HOSTS.len() * (OF_HOST + 1);

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A set-up, and its hosts as folders.
struct Deploying {
    folder: Folder,
}

impl Deploying {
    fn new() -> Self {
        let folder = Folder::new();
        for host in HOSTS {
            for part in ["etc", "run", "usr/local/bin", "state"] {
                fs::create_dir_all(folder.join("hosts").join(host).join(part)).expect("writable");
            }
        }
        fs::copy(repository("tests/deploy/topology.yaml"), folder.join("topology.yaml")).expect("writable");
        Self { folder }
    }

    /// Makes hosts that have nothing, for the same keys and certificates.
    fn with_folder_of(other: &Self) -> Self {
        let new = Self::new();
        let copied = Command::new("cp").arg("-a").args([other.out(), new.out()]).status().expect("a program");
        assert!(copied.success());
        new
    }

    fn out(&self) -> PathBuf {
        self.folder.join("otproxy-hosts")
    }

    fn host(&self, host: &str, file: &str) -> PathBuf {
        self.folder.join("hosts").join(host).join(file)
    }

    fn read(&self, host: &str, file: &str) -> String {
        fs::read_to_string(self.host(host, file)).unwrap_or_default()
    }

    fn write(&self, host: &str, file: &str, text: &str) {
        fs::write(self.host(host, file), text).expect("writable");
    }

    /// Runs it, with the program that stands in for this one.
    fn run(&self, arguments: &[&str]) -> Output {
        let program = repository("tests/deploy/program");
        self.run_plain(&[arguments, &["--program", program.to_str().expect("UTF-8")]].concat())
    }

    fn run_plain(&self, arguments: &[&str]) -> Output {
        let mut command = otproxy(&[&["deploy"], arguments].concat());
        command.current_dir(&*self.folder);
        self.on_hosts(&mut command).output().expect("the program starts")
    }

    fn on_hosts<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let programs = [repository("tests/deploy/host"), repository("tests/init/programs")];
        let programs = programs.map(|folder| folder.display().to_string()).join(":");
        let path = std::env::var("PATH").expect("a path");
        command
            .env("PATH", format!("{}:{path}", repository("tests/deploy/programs").display()))
            .env("HOST_PROGRAMS", programs)
            .env("HOSTS", self.folder.join("hosts"))
            .env("OTPROXY", env!("CARGO_BIN_EXE_otproxy"))
            .env("TMPDIR", &*self.folder)
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Returns its stderr, as it fails, and its stdout.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
        (text(&output.stderr), text(&output.stdout))
    }

    /// The calls of ssh so far.
    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("hosts/log")).unwrap_or_default();
        log.lines().filter(|call| !call.contains("<-O>")).map(str::to_owned).collect()
    }

    fn forget_calls(&self) {
        let _ = fs::remove_file(self.folder.join("hosts/log"));
    }

    /// Lets a host's timer run out; returns whether there was something for it to do.
    fn time_passes(&self, host: &str) -> bool {
        // It is started beside what loads a firewall.
        let timer = self.host(host, "state/timer");
        while fs::read_to_string(&timer).unwrap_or_default().lines().count() < 3 {
            std::thread::yield_now();
        }
        let mut command = Command::new("sh");
        let programs =
            format!("{}:{}", repository("tests/deploy/host").display(), std::env::var("PATH").expect("a path"));
        let root = self.folder.join("hosts").join(host);
        let output = command.arg(&timer).env("PATH", programs).env("ROOT", root).output().expect("a shell");
        fs::remove_file(&timer).expect("there");
        output.status.success()
    }

    /// All files of a host but those that tell how it came about.
    fn state(&self, host: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.folder.join("hosts").join(host);
        let mut found = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).expect("a folder") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).expect("below").display().to_string();
                    found.insert(name, fs::read(&path).expect("readable"));
                }
            }
        }
        found.retain(|name, _| {
            !name.starts_with("run/otproxy-firewall") && name != "state/timer" && name != "state/events"
        });
        found
    }

    /// Ensures that nothing on its way is left on any host, nor the folder of sockets here.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        for host in HOSTS {
            let left: Vec<_> = self.state(host).into_keys().collect();
            let is_rest = |name: &&String| name.contains("run/") || name.ends_with(".part") || name.ends_with(".new");
            assert_eq!(left.iter().find(is_rest), None, "{host}");
            assert!(!self.host(host, "run/otproxy-deploy").exists(), "{host}");
        }
        let sockets = fs::read_dir(&*self.folder).expect("a folder");
        let sockets = sockets.filter(|entry| {
            entry.as_ref().expect("readable").file_name().to_str().expect("UTF-8").starts_with("otproxy-deploy-")
        });
        assert_eq!(sockets.count(), 0);
    }
}

#[test]
fn hosts_get_all_that_they_need_and_then_nothing_more() {
    let deploying = Deploying::new();
    let said = deploying.succeeds(&[]);
    assert_eq!(deploying.calls().len(), ALL);
    for (host, role, name) in [
        ("198.51.100.7", "edge", "waw1"),
        ("198.51.100.9", "edge", "fra1"),
        ("2001-db8--7", "edge", "lon1"),
        ("hidden", "core", "core"),
    ] {
        let folder = if role == "core" { "core".to_owned() } else { format!("edge-{name}") };
        let own = |file: &str| fs::read_to_string(deploying.out().join(&folder).join(file)).expect(file);
        for file in [format!("{role}.yaml"), format!("{name}.pem"), format!("{name}.key"), "ca.pem".to_owned()] {
            assert_eq!(deploying.read(host, &format!("etc/otproxy/{file}")), own(&file), "{host}");
        }
        let program = fs::read_to_string(repository("tests/deploy/program")).expect("there");
        assert_eq!(deploying.read(host, "usr/local/bin/otproxy"), program);
        assert_eq!(deploying.read(host, "etc/nftables.conf"), own("nftables.conf"));
        assert!(deploying.read(host, "state/rules").contains("table inet otproxy {"));
        assert!(
            deploying.host(host, "state/boot-nftables").exists() && said.contains(&format!("{name}: tries whether"))
        );
        assert_eq!(deploying.read(host, "state/events"), format!("daemon-reload\nstarted otproxy-{role}.service\n"));
        assert!(said.contains(&format!("    ok    file: /etc/otproxy/{role}.yaml\n")), "{said}");
    }
    assert!(said.ends_with("4 hosts are set up as the topology says\n"), "{said}");
    // The side that connects is set up last and tried first.
    let tried: Vec<_> = said.lines().filter_map(|line| line.split_once(": tries ")).map(|(name, _)| name).collect();
    assert_eq!(tried, ["core", "lon1", "fra1", "waw1"]);
    deploying.assert_nothing_is_left();

    // Again: it looks, and tries.
    let before = HOSTS.map(|host| deploying.state(host));
    deploying.forget_calls();
    let again = deploying.succeeds(&[]);
    assert_eq!(deploying.calls().len(), 2 * HOSTS.len());
    assert_eq!(HOSTS.map(|host| deploying.state(host)), before);
    for what in ["program is", "files are", "firewall is"] {
        assert_eq!(again.matches(&format!(": the {what} in place\n")).count(), HOSTS.len(), "{again}");
    }

    // A service that has died is started again.
    fs::remove_file(deploying.host("hidden", "state/active-otproxy-core.service")).expect("there");
    let again = deploying.succeeds(&["--core"]);
    assert!(
        again.contains("core: the program is in place\ncore: copies the files\ncore: installs the files\n"),
        "{again}"
    );
}

#[test]
fn an_edge_more_is_a_line_and_a_command() {
    let deploying = Deploying::new();
    let topology = deploying.folder.join("topology.yaml");
    let whole = fs::read_to_string(&topology).expect("there");
    let without: Vec<_> = whole.lines().filter(|line| !line.contains("lon1")).collect();
    fs::write(&topology, without.join("\n")).expect("own file");
    deploying.succeeds(&[]);
    fs::write(&topology, whole).expect("own file");
    deploying.forget_calls();
    let said = deploying.succeeds(&[]);
    assert!(said.contains("created   edge-lon1/edge.yaml\n") && said.contains("changed   core/core.yaml\n"), "{said}");
    assert!(!said.contains("unchanged"), "{said}");
    assert!(deploying.read("hidden", "etc/otproxy/core.yaml").contains("lon1"));
    assert!(deploying.read("hidden", "state/events").ends_with("daemon-reload\nreload otproxy-core.service\n"));
    // The new one in whole, the core's files, and nothing at the others.
    assert_eq!(deploying.calls().len(), OF_HOST + 3 + 2 + HOSTS.len());
}

#[test]
fn a_dry_run_shows_what_would_run_and_runs_nothing() {
    let deploying = Deploying::new();
    for (name, flags) in [
        ("all", &["--edge", "fra1", "--core"][..]),
        ("package", &["--core", "--local", "core", "--package", "otproxy_0.1.0_amd64.deb"]),
        ("sudo", &["--edge", "waw1", "--edge", "fra1", "--sudo", "--user", "me", "-o", "Port=22", "--no-firewall"]),
    ] {
        fs::write(deploying.folder.join("otproxy_0.1.0_amd64.deb"), "a package").expect("own file");
        let flags = [flags, &["--dry-run"]].concat();
        let output = if name == "package" { deploying.run_plain(&flags) } else { deploying.run(&flags) };
        assert_eq!(text(&output.stderr), "");
        let said = text(&output.stdout);
        let words: Vec<_> = said.split(' ').collect();
        let sockets = said.lines().find_map(|line| line.strip_prefix("mkdir -m 700 ")).expect("a folder");
        let mut shown = said.replace(sockets, "/tmp/otproxy-deploy-1");
        shown = shown.replace(&repository("tests/deploy/program").display().to_string(), "/usr/local/bin/otproxy");
        for hash in words.iter().map(|word| word.trim_matches('"')).filter(|word| word.len() == 64) {
            shown = shown.replace(hash, "SHA256");
        }
        assert_golden(&repository("tests/deploy/golden").join(name), &shown);
        assert!(deploying.calls().is_empty() && !deploying.out().exists());
    }

    // The commands that are shown are those that run.
    let shown = text(&deploying.run(&["--dry-run"]).stdout);
    deploying.succeeds(&[]);
    let sockets = |text: &str| {
        text.split("ControlPath=").nth(1).and_then(|rest| rest.split("/%C").next()).expect("one").to_owned()
    };
    let log = deploying.calls().join("\n");
    let shown: Vec<_> = shown.replace(&sockets(&shown), &sockets(&log)).lines().map(str::to_owned).collect();
    let ran = deploying.calls();
    let as_run = |line: &String| {
        let command = line.rsplit(" | ").next().filter(|_| line.starts_with("tar ")).unwrap_or(line);
        let command = command.split(" < ").next().filter(|_| line.starts_with("ssh ")).unwrap_or(command);
        // The shell tells the words apart.
        let output = Command::new("sh").args(["-c", &format!("printf ' <%s>' {command}")]).output().expect("a shell");
        text(&output.stdout).trim_start_matches(" <ssh>").to_owned()
    };
    let shown: Vec<_> = shown.iter().filter(|line| line.contains("ssh ") && !line.starts_with('#')).collect();
    let shown: Vec<_> = shown.into_iter().map(as_run).filter(|line| !line.contains("<-O>")).collect();
    assert_eq!(shown.len(), ALL);
    assert_eq!(ran, shown.iter().map(|words| format!("ssh{words}")).collect::<Vec<_>>());
}

/// The steps behind a failure are done the next time, wherever it was, and those before it are not done again.
#[test]
fn it_goes_on_after_a_failure_at_each_step() {
    let whole = Deploying::new();
    // One edge is enough: hosts are alike.
    let flags = ["--edge", "waw1"];
    whole.succeeds(&flags);
    let steps = whole.calls().len();
    assert_eq!(steps, OF_HOST + 1);
    let expected = whole.state(HOSTS[0]);
    for how in ["before", "within", "after"] {
        for step in 1..=steps {
            let deploying = Deploying::with_folder_of(&whole);
            fs::write(deploying.folder.join("hosts/break"), format!("{how} {step}\n")).expect("own file");
            let (said, _) = deploying.fails(&flags);
            assert!(said.contains("waw1: ") && said.contains("ended with exit code 255; "), "{said}");
            let is_confirm = said.contains("waw1: confirm: ");
            let remedy =
                if is_confirm { "must let ssh in" } else { "`ssh root@198.51.100.7` must let you in from here\n" };
            assert!(said.contains(remedy) && said.contains("\nThe command: "), "{said}");
            // The program that runs, or will, is never half of one.
            for place in ["usr/local/bin/otproxy", "usr/local/bin/otproxy.new"] {
                let program = deploying.read(HOSTS[0], place);
                assert!(program.is_empty() || program == text(&expected["usr/local/bin/otproxy"]), "{how} {step}");
            }
            fs::remove_file(deploying.folder.join("hosts/break")).expect("own file");
            deploying.forget_calls();
            deploying.succeeds(&flags);
            assert_eq!(deploying.state(HOSTS[0]), expected, "{how} {step}");
            // The steps that are done by then are not done again.
            let left = if how == "after" { steps - step } else { steps + 1 - step };
            assert!(deploying.calls().len() <= left.max(1) + 2, "{how} {step}: {:?}", deploying.calls());
            deploying.assert_nothing_is_left();
            let events = deploying.read(HOSTS[0], "state/events");
            assert_eq!(events.matches("started").count(), 1, "{how} {step}: {events}");
        }
    }
}

#[test]
fn a_host_that_cannot_be_reached_stops_it_with_the_remedy() {
    let deploying = Deploying::new();
    fs::remove_dir_all(deploying.folder.join("hosts/198.51.100.9")).expect("own folder");
    let (said, before) = deploying.fails(&[]);
    // The words of ssh, and ours.
    assert!(said.contains("    ssh: connect to host 198.51.100.9 port 22: Connection timed out\n"), "{said}");
    let says = "otproxy: fra1: look: ended with exit code 255; `ssh -p 2222 admin@198.51.100.9` must let you in from here\n\
                The command: ssh -T -o ControlMaster=auto ";
    assert!(said.contains(says), "{said}");
    assert!(before.contains("waw1: confirms the firewall") && !before.contains("lon1 ("), "{before}");
    assert!(deploying.calls().iter().all(|call| !call.contains("2001:db8::7")));

    for (words, remedy) in [
        (
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @",
            "compare its key with what the provider's console shows",
        ),
        ("Host key verification failed.", "log in once by `ssh root@198.51.100.7`, and compare the host's key"),
        ("root@198.51.100.7: Permission denied (publickey).", "as with `ssh-copy-id`"),
        (
            "ssh: Could not resolve hostname p1: Name or service not known",
            "put the host's address right in the topology",
        ),
    ] {
        deploying.write(HOSTS[0], "state/words", &format!("{words}\n"));
        let (said, _) = deploying.fails(&[]);
        assert!(said.contains(words) && said.contains(remedy), "{said}");
    }
    assert!(deploying.calls().iter().all(|call| !call.contains("HostKey")), "keys of hosts are for ssh to check");
}

#[test]
fn a_program_that_cannot_run_there_is_not_installed() {
    let deploying = Deploying::new();
    deploying.succeeds(&["--edge", "waw1"]);
    let before = deploying.state(HOSTS[0]);
    // By the name of the machine: nothing is copied.
    deploying.write(HOSTS[0], "state/machine", "riscv64\n");
    let output = deploying.run_plain(&["--edge", "waw1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let says = format!("its machine is riscv64, and this program is for {}; give one", std::env::consts::ARCH);
    assert!(said.contains(&says) && said.contains("`--program FILE`"), "{said}");
    // By trying it: as where a library of the system is too old.
    fs::remove_file(deploying.host(HOSTS[0], "state/machine")).expect("own file");
    deploying.write(HOSTS[0], "state/old", "");
    let other = deploying.folder.join("other");
    let program = fs::read_to_string(repository("tests/deploy/program")).expect("there");
    fs::write(&other, format!("{program}# newer\n")).expect("own file");
    let output = deploying.run_plain(&["--edge", "waw1", "--program", other.to_str().expect("UTF-8")]);
    let said = text(&output.stderr);
    assert!(said.contains("    version GLIBC_2.38 not found\n"), "{said}");
    assert!(said.contains("waw1: program: ended with exit code 1; give a program that was built on that"), "{said}");
    fs::remove_file(deploying.host(HOSTS[0], "state/old")).expect("own file");
    assert_eq!(deploying.state(HOSTS[0]), before);
    // Somebody who is not root.
    deploying.write(HOSTS[0], "state/user", "1000");
    let (said, _) = deploying.fails(&["--edge", "waw1"]);
    assert!(said.contains("waw1: commands do not run as root there; log in as root, or give `--sudo`"), "{said}");
    deploying.succeeds(&["--edge", "waw1", "--sudo"]);
}

#[test]
fn files_that_are_not_accepted_stop_it() {
    let deploying = Deploying::new();
    deploying.succeeds(&["--edge", "waw1"]);
    let before = deploying.state(HOSTS[0]);
    let yaml = deploying.out().join("edge-waw1/edge.yaml");
    let good = fs::read_to_string(&yaml).expect("there");
    fs::write(&yaml, format!("{good}worker: 1\n")).expect("own file");
    let (said, _) = deploying.fails(&["--edge", "waw1"]);
    assert!(said.contains("worker: unknown key"), "the host's words: {said}");
    assert!(said.contains("waw1: install: ended with exit code 78; put right what it says above; "), "{said}");
    assert_eq!(deploying.state(HOSTS[0]), before);
    deploying.assert_nothing_is_left();

    // New text beside an edited file is not passed over.
    fs::write(&yaml, format!("{good}workers: 1\n")).expect("own file");
    let topology = deploying.folder.join("topology.yaml");
    let more = fs::read_to_string(&topology).expect("there") + "tunnel_port: 7443\n";
    fs::write(&topology, more).expect("own file");
    deploying.forget_calls();
    let (said, _) = deploying.fails(&["--edge", "waw1"]);
    assert!(
        said.contains("edge.yaml was edited by hand, and ") && said.contains("edge.yaml.new has new text for it"),
        "{said}"
    );
    assert!(deploying.calls().is_empty(), "nothing was begun");
    fs::rename(deploying.out().join("edge-waw1/edge.yaml.new"), &yaml).expect("there");
    deploying.succeeds(&["--edge", "waw1"]);
    assert!(deploying.read(HOSTS[0], "etc/otproxy/edge.yaml").contains("7443"));
}

#[test]
fn a_firewall_that_nobody_gets_through_is_taken_back() {
    let deploying = Deploying::new();
    let flags = ["--edge", "waw1"];
    deploying.succeeds(&flags);
    let before = deploying.state(HOSTS[0]);
    let rules = deploying.out().join("edge-waw1/nftables.conf");
    let good = fs::read_to_string(&rules).expect("there");
    fs::write(&rules, format!("{good}# deaf\n")).expect("own file");
    let (said, _) = deploying.fails(&flags);
    assert!(said.contains("waw1: confirm: ended with exit code 255; the firewall from before is back; otproxy-hosts/edge-waw1/nftables.conf must let ssh in"), "{said}");
    assert_eq!(deploying.state(HOSTS[0]), before);

    // If this end is gone too, the host does it by itself.
    deploying.forget_calls();
    fs::write(deploying.folder.join("hosts/break"), "gone 2\n").expect("own file");
    fs::write(&rules, format!("{good}# another\n")).expect("own file");
    let (said, _) = deploying.fails(&flags);
    let says = format!(
        "the host brings back the firewall from before within {} s of loading the new one",
        UNDO_AFTER.as_secs()
    );
    assert!(said.contains(&format!("waw1: firewall: ended with exit code 255; {says}; ")), "{said}");
    assert!(deploying.read(HOSTS[0], "state/rules").contains("another"));
    fs::remove_file(deploying.folder.join("hosts/break")).expect("own file");
    // Meanwhile nobody loads another one, which could make that the one from before.
    let (said, _) = deploying.fails(&flags);
    assert!(said.contains("a firewall waits here to be confirmed; run this again in a minute"), "{said}");
    deploying.time_passes(HOSTS[0]);
    assert_eq!(deploying.read(HOSTS[0], "state/rules"), text(&before["state/rules"]));
    assert_eq!(deploying.state(HOSTS[0]), before);
    // One that was confirmed stays.
    deploying.succeeds(&flags);
    assert!(!deploying.time_passes(HOSTS[0]));
    assert!(deploying.read(HOSTS[0], "state/rules").contains("another"));

    // A file that nft does not take is not loaded at all.
    fs::write(&rules, format!("{good}nonsense\n")).expect("own file");
    let (said, _) = deploying.fails(&flags);
    assert!(
        said.contains("syntax error") && said.contains("waw1: firewall: ended with exit code 1; put right"),
        "{said}"
    );
    assert!(deploying.read(HOSTS[0], "state/rules").contains("another"));
}

/// Nobody loses by default what a host has and the file does not.
#[test]
fn a_firewall_takes_nothing_away_that_nobody_has_looked_at() {
    let deploying = Deploying::new();
    let hidden = "hidden";
    let flags = ["--core"];
    // The game server's own ports are closed on purpose: players come through the edges.
    let listens = |ports: &[&str]| ports.iter().map(|port| format!("LISTEN 0 128 {port} *:*\n")).collect::<String>();
    deploying.write(
        hidden,
        "state/listens",
        &listens(&["0.0.0.0:22", "*:7171", "[::]:7172", "0.0.0.0:80", "[::]:443", "127.0.0.1:3306"]),
    );
    let (said, _) = deploying.fails(&flags);
    assert!(
        said.contains("core: programs listen there at ports that ") && said.contains("closes: 80, 443; add those"),
        "{said}"
    );
    assert_eq!(deploying.calls().len(), 1, "nothing was begun");
    let rules = deploying.out().join("core/nftables.conf");
    let good = fs::read_to_string(&rules).expect("there");
    fs::write(
        &rules,
        good.replace("        # Nothing else", "        tcp dport { 80, 443 } accept\n        # Nothing else"),
    )
    .expect("own file");
    deploying.succeeds(&flags);

    deploying.write(hidden, "state/rules", "table inet otproxy {\n}\ntable ip nat {\n}\n");
    fs::remove_file(deploying.host(hidden, "state/boot-nftables")).expect("there");
    let (said, _) = deploying.fails(&flags);
    assert!(
        said.contains("core: its firewall has more than ") && said.contains("nftables.conf has: table ip nat; add"),
        "{said}"
    );
    for flags in [["--core", "--no-firewall"], ["--core", "--replace-firewall"]] {
        let said = deploying.succeeds(&flags);
        let is_left = flags[1] == "--no-firewall";
        assert_eq!(
            said.contains("core: the firewall is left alone; otproxy-hosts/core/README.md has its steps"),
            is_left
        );
        assert_eq!(deploying.read(hidden, "state/rules").contains("table ip nat"), is_left);
    }
    // The host's former file is kept.
    deploying.write("198.51.100.7", "etc/nftables.conf", "# mine\n");
    deploying.succeeds(&["--edge", "waw1"]);
    assert_eq!(deploying.read("198.51.100.7", "etc/nftables.conf.before-otproxy"), "# mine\n");
}

#[test]
fn what_does_not_work_in_the_end_is_said() {
    let deploying = Deploying::new();
    deploying.write("hidden", "state/ill", "");
    deploying.write(
        "hidden",
        "state/doctor",
        "fail  tunnel waw1: does not answer\u{1b}[2J; remedy: see that it is up\n",
    );
    let (said, before) = deploying.fails(&[]);
    // A host's words cannot move the terminal's cursor.
    assert!(
        before.ends_with("    fail  tunnel waw1: does not answer\\u{1b}[2J; remedy: see that it is up\n"),
        "{before}"
    );
    assert!(
        said.contains("otproxy: core: doctor: ended with exit code 1; each line that fails has its remedy; then run"),
        "{said}"
    );
    assert!(!before.contains("waw1: tries"), "{before}");
}

#[test]
fn the_host_that_this_is_takes_no_ssh() {
    let deploying = Deploying::new();
    let topology = deploying.folder.join("topology.yaml");
    let text_of = fs::read_to_string(&topology).expect("there");
    fs::write(&topology, text_of.replace("core: { ssh: hidden }\n", "")).expect("own file");
    let output = deploying.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    let says = "topology.yaml: core: has no `ssh` and no `address`; write `core: { ssh: root@HOST }` there, run this on that host with `--local core`";
    assert!(said.contains(says), "{said}");
    let said = text(&deploying.run(&["--local", "core", "--dry-run", "--core"]).stdout);
    assert!(!said.contains("ssh ") && said.contains("\nsh -c '") && !said.contains("nft -f"), "{said}");
    let said = text(&deploying.run(&["--local", "core", "--dry-run", "--core", "--sudo"]).stdout);
    assert!(said.contains("\nsudo sh -c '") && !said.contains("\nsh -c '"), "{said}");
}

#[test]
fn a_package_is_installed_once() {
    let deploying = Deploying::new();
    let package = deploying.folder.join("otproxy_0.1.0_amd64.deb");
    fs::copy(repository("tests/deploy/program"), &package).expect("writable");
    let run = |flags: &[&str]| {
        let output = deploying.run_plain(&[&["--edge", "waw1"], flags].concat());
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    run(&["--package", "otproxy_0.1.0_amd64.deb"]);
    let events = deploying.read(HOSTS[0], "state/events");
    assert!(events.starts_with("installed ") && events.contains("started otproxy-edge.service"), "{events}");
    let again = run(&["--package", "otproxy_0.1.0_amd64.deb"]);
    assert!(again.contains("waw1: the package is in place\nwaw1: the files are in place\n"), "{again}");
    // The unit is the package's own, as long as that is installed.
    fs::remove_file(deploying.host(HOSTS[0], "etc/systemd/system/otproxy-edge.service")).expect("there");
    assert!(run(&["--package", "otproxy_0.1.0_amd64.deb"]).contains("waw1: the files are in place\n"));
    deploying.write(HOSTS[0], "state/package", "package 0.1.0_amd64 config-files\n");
    let plain = deploying.succeeds(&["--edge", "waw1"]);
    assert!(plain.contains("waw1: the program is in place\nwaw1: copies the files\n"), "{plain}");
    // One whose name says nothing may be any.
    fs::copy(&package, deploying.folder.join("new.deb")).expect("writable");
    assert!(run(&["--package", "new.deb"]).contains("waw1: copies the package and installs it\n"));
    deploying.assert_nothing_is_left();
}

#[test]
fn nothing_secret_is_in_an_argument() {
    let deploying = Deploying::new();
    let output = deploying.run(&["-o", "IdentityFile=my key"]);
    assert!(output.status.success());
    let said = text(&output.stdout) + &text(&output.stderr) + &deploying.calls().join("\n");
    let mut count = 0;
    for (folder, name) in
        [("ca", "ca"), ("core", "core"), ("edge-waw1", "waw1"), ("edge-fra1", "fra1"), ("edge-lon1", "lon1")]
    {
        let key = fs::read_to_string(deploying.out().join(folder).join(format!("{name}.key"))).expect("a key");
        for line in key.lines().filter(|line| !line.starts_with("---")) {
            assert!(!said.contains(line), "{name}");
            count += 1;
        }
    }
    assert!(count >= 5);
    // The authority's key goes nowhere at all.
    let own = fs::read(deploying.out().join("ca/ca.key")).expect("a key");
    assert!(HOSTS.iter().all(|host| deploying.state(host).values().all(|file| *file != own)));
    assert!(deploying.calls().iter().all(|call| call.contains(" <-o> <IdentityFile=my key> ")));
    // The confirming connection is a new one, the others share one; ssh takes the first of two options.
    for call in deploying.calls() {
        let is_fresh = call.contains("mv armed.* confirmed");
        assert_eq!(call.starts_with("ssh <-T> <-o> <ControlMaster=no> <-o> <ControlPath=none> "), is_fresh, "{call}");
        assert!(call.contains("<ConnectTimeout=10>") && call.contains("<ServerAliveInterval=5>"), "{call}");
    }
}

#[test]
fn hosts_that_are_none_are_refused() {
    let deploying = Deploying::new();
    for (flags, says) in [
        (
            &["--edge", "nobody"][..],
            "there is no host `nobody` in the topology, or it is revoked; there are `waw1`, `fra1`, `lon1`, `core`",
        ),
        (&["--edge", "old1"], "there is no host `old1`"),
        (&["--local", "$(id)"], "there is no host `$(id)`"),
        (&["--user=-oProxyCommand=id"], "is no user's name"),
        (&["--user", "a b"], "`a b` is no user's name"),
        (&["nothing.yaml"], ""),
    ] {
        let output = deploying.run(flags);
        let code = if says.is_empty() { 78 } else { 2 };
        assert!(failed(&output, code).contains(says), "{}", text(&output.stderr));
    }
    let topology = deploying.folder.join("topology.yaml");
    let text_of = fs::read_to_string(&topology).expect("there");
    for odd in ["-oProxyCommand=id", "root@-oProxyCommand=id", "root@h; id", "root@$(id)", "a b@h", "root@h:0"] {
        fs::write(&topology, text_of.replace("ssh: hidden", &format!("ssh: '{odd}'"))).expect("own file");
        let said = failed(&deploying.run(&["--dry-run"]), 78);
        assert!(said.contains("core.ssh: "), "{odd}: {said}");
    }
    fs::remove_file(&topology).expect("own file");
    let said = failed(&deploying.run(&[]), 2);
    assert!(said.contains("missing: the topology; there is none in otproxy-hosts"), "{said}");
    assert!(deploying.calls().is_empty() && !deploying.out().exists());
}

#[test]
fn odd_names_of_files_are_names() {
    let deploying = Deploying::new();
    let odd = deploying.folder.join("it's $(touch odd) \"here\"");
    fs::create_dir(&odd).expect("writable");
    let out = odd.join("out");
    deploying.succeeds(&["--edge", "waw1", "--out", out.to_str().expect("UTF-8")]);
    assert!(deploying.host(HOSTS[0], "etc/otproxy/waw1.key").exists());
    assert!(!deploying.folder.join("odd").exists() && !odd.join("odd").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_shell_takes_a_quoted_word_for_the_word(words in prop::collection::vec("[^\\x00]{0,20}", 1..20)) {
        let quoted: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        // Twice, as a host's shell takes them once more.
        let inner = format!("printf '%s\\0' {}", quoted.join(" "));
        for script in [inner.clone(), format!("sh -c {}", otproxy::deploy::quoted(&inner))] {
            let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
            let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
            prop_assert_eq!(text(&output.stdout), expected);
        }
    }
}

#[test]
fn the_document_has_the_times_and_the_flags() {
    let document = fs::read_to_string(repository("docs/deploy.md")).expect("the document");
    for says in [
        format!("within {} s", UNDO_AFTER.as_secs()),
        format!("{} minutes", COMMAND_WITHIN.as_secs() / 60),
        format!("{} KiB", otproxy::deploy::MAX_OUTPUT / 1024),
    ] {
        assert!(document.contains(&says), "{says}");
    }
    let help = otproxy(&["deploy", "--help"]).output().expect("the program starts");
    let help = text(&help.stdout);
    let flags = help.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    let flags: Vec<_> =
        flags.filter(|flag| !["--help", "--version", "--log-format", "--log-level"].contains(flag)).collect();
    assert!(flags.len() >= 11, "{flags:?}");
    for flag in flags {
        assert!(document.contains(&format!("`{flag}")), "{flag}");
    }
}
