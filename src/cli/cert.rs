//! `otproxy cert`: its arguments and its messages.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Subcommand, ValueHint};
use humantime::format_rfc3339_seconds;

use super::print;
use crate::certs::authority::{Authority, DAYS, IssueTerms, IssuedCertificate, KeyFile, YEARS};
use crate::certs::name::Name;
use crate::certs::show;
use otproxy_protocol::printable::{Printable, printable_json};

/// The folder of the operators' authority, in that of the tunnel's.
const OPERATORS: &str = "operators";

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Make the authority, once: ca.pem for every host, and ca.key, which stays on this one
    Init {
        #[command(flatten)]
        place: CertDirectory,
        /// How long it is valid
        #[arg(long, value_name = "N", default_value_t = YEARS, value_parser = clap::value_parser!(u32).range(1..=30))]
        years: u32,
    },
    /// Make or renew the core's certificate: core.pem and core.key
    Core {
        #[command(flatten)]
        issue: Issue,
    },
    /// Make or renew an edge's certificate: NAME.pem and NAME.key
    Edge {
        /// The edge, as in `edges` of core.yaml
        #[arg(value_name = "NAME", value_parser = Name::edge)]
        name: Name,
        #[command(flatten)]
        issue: Issue,
    },
    /// Make or renew the certificate of an operator, who acts by it at `admin.listen`: operators/NAME.pem and NAME.key
    ///
    /// It comes from an authority of the operators' own, which is made with the first one: operators/ca.pem goes to each
    /// host, as `admin.tls.client_ca`. Edges have certificates of the other authority, and cannot act.
    Operator {
        /// The operator, as it is called in logs and in `admin.tls.revoked`
        #[arg(value_name = "NAME", value_parser = Name::edge)]
        name: Name,
        #[command(flatten)]
        issue: Issue,
    },
    /// Say what certificates hold; exit code 1 if one has expired or cannot be read
    Show {
        /// Files with certificates, PEM
        #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// A JSON array on stdout instead of lines
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CertDirectory {
    /// The directory of all these files; it is made if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Issue {
    #[command(flatten)]
    place: CertDirectory,
    /// How long it is valid: never longer than the authority
    #[arg(long, value_name = "N", default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Make a new private key, too, in the place of the one that is there
    #[arg(long)]
    new_key: bool,
}

impl Cert {
    pub(super) fn execute(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Init { place, years } => init(&place.dir, *years),
            Self::Core { issue } => issue.execute(&Name::core(), "the core's host", "tunnel.tls"),
            Self::Edge { name, issue } => issue.execute(name, &format!("the host of {name}"), "core.tls"),
            Self::Operator { name, issue } => issue.operator(name),
            Self::Show { files, json } => show(files, *json),
        }
    }
}

fn init(directory: &Path, years: u32) -> anyhow::Result<ExitCode> {
    let authority = Authority::create(directory, years)?;
    let certificate = authority.certificate();
    let text = format!(
        "made the authority `{}`, valid until {}\n\
         {}  goes to the core's host and to every edge\n\
         {}  stays here: with it anybody can be the core or an edge; keep a copy in a safe place\n\
         next: `otproxy cert core` and `otproxy cert edge NAME` for each edge{}\n",
        certificate.subject,
        format_rfc3339_seconds(certificate.not_after),
        authority.certificate_file().display(),
        authority.key_file().display(),
        if directory == Path::new(".") { String::new() } else { format!(", with `--dir {}`", directory.display()) },
    );
    print(text.as_bytes())
}

impl Issue {
    fn execute(&self, name: &Name, host: &str, keys: &str) -> anyhow::Result<ExitCode> {
        let directory = &self.place.dir;
        let authority = Authority::open(directory)?;
        warn_if_exposed(&authority);
        let issued = authority.issue(name, directory, self.terms())?;
        print(said(name, &authority, &issued, host, keys).as_bytes())
    }

    /// Issues an operator's certificate; makes their authority with the first one.
    fn operator(&self, name: &Name) -> anyhow::Result<ExitCode> {
        let directory = self.place.dir.join(OPERATORS);
        let new = !Authority::exists(&directory);
        let authority = if new { Authority::create(&directory, YEARS)? } else { Authority::open(&directory)? };
        warn_if_exposed(&authority);
        let issued = authority.issue_operator(name, &directory, self.terms())?;
        print(said_of_operator(name, &authority, &issued, new).as_bytes())
    }

    fn terms(&self) -> IssueTerms {
        IssueTerms { days: self.days, new_key: self.new_key }
    }
}

fn warn_if_exposed(authority: &Authority) {
    if authority.key_is_exposed() {
        let key = authority.key_file().display();
        let _ = writeln!(io::stderr(), "otproxy: warning: {key} can be read by others; run `chmod 600 {key}`");
    }
}

/// Returns the messages on an operator's certificate.
fn said_of_operator(name: &Name, authority: &Authority, issued: &IssuedCertificate, new: bool) -> String {
    let made = match new {
        true => format!(
            "made the operators' authority `{}`, beside the one of the tunnel\n",
            authority.certificate().subject
        ),
        false => String::new(),
    };
    let done = if issued.renewed { "renewed" } else { "made" };
    let until = format_rfc3339_seconds(issued.not_after);
    let end = if issued.shortened { ", as long as its authority" } else { "" };
    let key = match issued.key_file {
        KeyFile::Made => "new: both go to the operator, who gives them to `otproxy` as `--cert` and `--key`",
        KeyFile::Kept => "the same key as before: leave it where it is",
        KeyFile::Replaced => "NEW: both go to the operator; revoke the old certificate by its serial number",
    };
    format!(
        "{made}{done} the certificate of the operator `{name}`, valid until {until}{end}\n\
         {}  goes to the operator\n\
         {}  {key}\n\
         {}  goes to each host, as `admin.tls.client_ca`\n\
         {}  stays here: with it anybody can act\n",
        issued.certificate.display(),
        issued.key.display(),
        authority.certificate_file().display(),
        authority.key_file().display(),
    )
}

/// Returns the messages on what was written and on which file goes where.
fn said(name: &Name, authority: &Authority, issued: &IssuedCertificate, host: &str, keys: &str) -> String {
    let done = if issued.renewed { "renewed" } else { "made" };
    let until = format_rfc3339_seconds(issued.not_after);
    let end = if issued.shortened { ", as long as its authority" } else { "" };
    let key = match issued.key_file {
        KeyFile::Made => format!("new: goes to {host}, as `{keys}.key`, readable by otproxy alone"),
        KeyFile::Kept => "the same key as before: leave it where it is".to_owned(),
        KeyFile::Replaced => format!(
            "NEW: goes to {host} together with the certificate; certificates for the old key stay valid until they expire"
        ),
    };
    let ca = authority.certificate_file().display();
    let rest = match (issued.renewed, issued.key_file) {
        (true, KeyFile::Kept) => "it is taken up without a restart".to_owned(),
        _ => format!("{ca} goes there as well, as `{keys}.ca`"),
    };
    format!(
        "{done} the certificate of `{name}`, valid until {until}{end}\n\
         {}  goes to {host}, as `{keys}.cert`; {rest}\n\
         {}  {key}\n\
         {}  stays here\n",
        issued.certificate.display(),
        issued.key.display(),
        authority.key_file().display(),
    )
}

fn show(files: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let (report, now) = (show::read(files), SystemTime::now());
    let text = if json { printable_json(&format!("{:#}\n", report.json(now))).into() } else { report.text(now) };
    print(text.as_bytes())?;
    let problems = report.problems(now);
    for problem in &problems {
        let _ = writeln!(io::stderr(), "otproxy: {}", Printable(problem));
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
