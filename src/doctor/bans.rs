//! Bans in the kernel: the privilege of the service, and what nftables has.

use super::systemd::Unit;
use super::{DoctorCheck, tool};
use crate::admission::bans::nft_remedy;
use otproxy_config::NftTable;

/// The sets, in the order in which they are looked for.
const SETS: [&str; 2] = ["banned4", "banned6"];

/// Checks that the service can fill the sets, and that the kernel drops what is in them.
pub(super) async fn examine(table: &NftTable, unit: Option<&Unit>) -> DoctorCheck {
    if let Some(unit) = unit.filter(|unit| unit.is_there()) {
        let lacks = unit.lacks_for_nft();
        if !lacks.is_empty() {
            let name = unit.name();
            let remedy = format!(
                "`systemctl edit {name}`, with these lines below `[Service]`: {}; then `systemctl restart {name}`",
                lacks.iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", ")
            );
            return fail(
                table,
                format!("{name}.service may not change nftables, so bans hold in otproxy alone"),
                remedy,
            );
        }
    }
    let Some(said) = tool::ask("nft", &["list", "table", &table.family, &table.name]).await else {
        return fail(
            table,
            "nft cannot be run here, so bans hold in otproxy alone".to_owned(),
            nft_remedy(table, "cannot be run"),
        );
    };
    if said.success { of_table(table, &said.stdout) } else { of_error(table, &said.stderr) }
}

fn fail(table: &NftTable, message: String, remedy: String) -> DoctorCheck {
    DoctorCheck::fail(("bans", &table.to_string()), message, remedy)
}

/// Judges a table as nft prints it.
fn of_table(table: &NftTable, text: &str) -> DoctorCheck {
    let has = |line: &str| text.lines().any(|has| has.trim_start().starts_with(line));
    let missing: Vec<_> = SETS.into_iter().filter(|set| !has(&format!("set {set} "))).collect();
    if !missing.is_empty() {
        let message = format!("it has no set {}, so bans hold in otproxy alone", missing.join(" and no set "));
        return fail(table, message, nft_remedy(table, "No such file or directory"));
    }
    let unused: Vec<_> = SETS.into_iter().filter(|set| !text.contains(&format!("@{set}"))).collect();
    if !unused.is_empty() {
        let message = format!("no rule of it names @{}: the kernel drops nothing", unused.join(" or @"));
        return fail(table, message, nft_remedy(table, "No such file or directory"));
    }
    DoctorCheck::ok("bans", table.to_string(), "has both sets, and rules that name them")
}

/// Judges what nft says where it shows no table.
fn of_error(table: &NftTable, error: &str) -> DoctorCheck {
    let first = error.lines().next().unwrap_or("nft failed without a word");
    if first.contains("not permitted") || first.contains("ermission denied") {
        let remedy = "run this as root";
        return DoctorCheck::warn(("bans", &table.to_string()), "only root can look at nftables", remedy);
    }
    fail(table, format!("bans hold in otproxy alone: {first}"), nft_remedy(table, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckStatus;

    fn table() -> NftTable {
        NftTable { family: "inet".to_owned(), name: "otproxy".to_owned() }
    }

    const WHOLE: &str = "table inet otproxy {\n\tset banned4 {\n\t\ttype ipv4_addr\n\t}\n\tset banned6 {\n\t\ttype ipv6_addr\n\t}\n\tchain input {\n\
        \t\tip saddr @banned4 tcp dport { 7162, 7171 } drop\n\t\tip6 saddr @banned6 tcp dport { 7162, 7171 } drop\n\t}\n}\n";

    #[test]
    fn sets_and_rules_are_looked_for() {
        assert_eq!(of_table(&table(), WHOLE).status, CheckStatus::Ok);
        let without_set = of_table(&table(), &WHOLE.replace("set banned6 ", "set other "));
        assert_eq!(without_set.status, CheckStatus::Fail);
        assert!(
            without_set.message.contains("no set banned6")
                && without_set.remedy.unwrap().contains("add set inet otproxy banned6")
        );
        let without_rule = of_table(&table(), &WHOLE.replace("@banned4", "@banned6"));
        assert_eq!(without_rule.status, CheckStatus::Fail);
        assert!(without_rule.message.contains("no rule of it names @banned4"), "{without_rule:?}");
        assert!(without_rule.remedy.unwrap().contains("ip saddr @banned4 tcp dport"));
    }

    #[test]
    fn an_error_of_nft_is_no_green_light() {
        let missing = of_error(&table(), "Error: No such file or directory\nlist table inet otproxy\n");
        assert!(missing.status == CheckStatus::Fail && missing.remedy.unwrap().contains("nft add table inet otproxy"));
        let forbidden = of_error(&table(), "Operation not permitted (you must be root)\n");
        assert!(forbidden.status == CheckStatus::Warn && forbidden.remedy.unwrap().contains("as root"));
    }
}
