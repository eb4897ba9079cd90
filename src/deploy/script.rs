//! The scripts that are run on a host. Each has one line, no `!`, which some shells take for more than a character, and no `'`, since it
//! stands in such quotes.

use std::time::Duration;

use super::quote::quoted;
use crate::init::INSTALL;
use otproxy_config::RoleKind;

/// The time after which a host undoes its new firewall unless it is confirmed.
pub const UNDO_AFTER: Duration = Duration::from_secs(60);

/// The program's place, without a package.
pub(super) const PROGRAM: &str = "/usr/local/bin/otproxy";
/// The place that `install.sh` takes a new program from.
pub(super) const NEW_PROGRAM: &str = "/usr/local/bin/otproxy.new";
/// The file that the system loads the firewall from.
pub(super) const RULES_FILE: &str = "/etc/nftables.conf";
/// The folder of a host's files on their way. It is in memory, as the key is among them.
const FOLDER: &str = "/run/otproxy-deploy";
/// The package on its way. apt-get goes by the end of its name.
const PACKAGE: &str = "/run/otproxy-deploy.deb";
/// The folder of a firewall that waits to be confirmed: `new`, `before`, and an empty file `armed.N` for as long as it waits.
/// Whoever renames that file decides what becomes of it.
const FIREWALL: &str = "/run/otproxy-firewall";

/// Returns the question what a host is, and what it has.
pub(super) fn look(unit: &str, places: &[&str]) -> String {
    format!(
        "echo machine $(uname -m); echo user $(id -u); echo unit $(systemctl is-active {unit}); \
         echo boot $(systemctl is-enabled nftables); \
         dpkg-query -W -f=\"package \\${{Version}}_\\${{Architecture}} \\${{db:Status-Status}}\\n\" otproxy 2>/dev/null; nft list tables 2>/dev/null; \
         ss -Hltn 2>/dev/null | while read -r state receive send at rest; do echo listens $at; done; \
         sha256sum {} 2>/dev/null; true",
        words(places)
    )
}

/// Returns what takes the program from stdin. A copy that is not whole, or does not run there, changes nothing.
pub(super) fn program(sha256: &str) -> String {
    let part = format!("{NEW_PROGRAM}.part");
    format!(
        "set -eu; umask 022; trap \"rm -f {part}\" EXIT; cat > {part}; echo \"{sha256}  {part}\" | sha256sum -c --status; \
         chmod 755 {part}; {part} --version; mv -f {part} {NEW_PROGRAM}"
    )
}

/// Returns what takes a package from stdin, and installs it.
pub(super) fn package(sha256: &str) -> String {
    format!(
        "set -eu; umask 022; trap \"rm -f {PACKAGE}\" EXIT; cat > {PACKAGE}; \
         echo \"{sha256}  {PACKAGE}\" | sha256sum -c --status; \
         DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 install -y --no-install-recommends {PACKAGE}"
    )
}

/// Returns what takes an archive of a host's files from stdin.
pub(super) fn files() -> String {
    format!("set -eu; umask 077; rm -rf {FOLDER}; mkdir {FOLDER}; tar -C {FOLDER} -xof -")
}

/// Returns what installs those files. Their copies go, whatever comes of it.
pub(super) fn install() -> String {
    format!("sh {FOLDER}/{INSTALL}; code=$?; rm -rf {FOLDER}; exit $code")
}

/// Returns what takes a firewall from stdin and loads it. Before that a timer runs there which brings back the rules of now.
pub(super) fn load() -> String {
    let seconds = UNDO_AFTER.as_secs();
    format!(
        "set -eu; umask 077; command -v nft >/dev/null || {{ echo \"nft is missing: apt-get install nftables\" >&2; exit 1; }}; \
         mkdir -p {FIREWALL}; cd {FIREWALL}; for armed in armed.*; do if [ -e $armed ]; then \
         echo \"a firewall waits here to be confirmed; run this again in a minute\" >&2; exit 1; fi; done; \
         cat > new; nft -c -f new; {{ echo flush ruleset; nft list ruleset; }} > before; touch armed.$$; \
         setsid sh -c \"sleep {seconds}; mv armed.$$ undone && nft -f before\" </dev/null >/dev/null 2>&1 & \
         nft -f new || {{ mv armed.$$ undone; exit 1; }}"
    )
}

/// Returns what confirms that firewall, and makes it the one that the system loads. The file from before is kept, once.
pub(super) fn confirm() -> String {
    format!(
        "set -eu; cd {FIREWALL}; mv armed.* confirmed; \
         [ -e {RULES_FILE}.before-otproxy ] || cp {RULES_FILE} {RULES_FILE}.before-otproxy 2>/dev/null || true; \
         install -m 755 new {RULES_FILE}.new; mv -f {RULES_FILE}.new {RULES_FILE}; systemctl enable nftables"
    )
}

/// Returns what brings back the rules from before, at once.
pub(super) fn undo() -> String {
    format!("set -eu; cd {FIREWALL}; mv armed.* undone; nft -f before")
}

/// Returns what tries whether all is well.
pub(super) fn doctor(role: RoleKind) -> String {
    format!("otproxy doctor -c /etc/otproxy/{role}.yaml")
}

fn words(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_passes_them_on() {
        let all = [
            look("otproxy-edge.service", &["/etc/otproxy/edge.yaml"]),
            program("0a"),
            package("0a"),
            files(),
            install(),
            load(),
            confirm(),
            undo(),
            doctor(RoleKind::Core),
        ];
        for script in all {
            assert!(!script.contains(['\'', '!', '\n', '\r']) && script.is_ascii(), "{script}");
        }
    }
}
