//! The guides: the steps in order, with commands, for the whole folder and for each host.

use std::fmt::Write;
use std::net::Ipv6Addr;

use super::certificates::RENEW_DAYS;
use super::host::{Host, ROOT};
use super::service::{DROP_IN, unit_name};
use otproxy_config::{CoreMode, LINKS_PORT, LOGIN_PORT, SshTarget, Topology};

/// The placeholder of a host whose address is not in the topology.
const UNKNOWN: &str = "CORE";

/// Returns `README.md` of the whole folder.
pub(super) fn whole(topology: &Topology) -> String {
    let hosts = Host::in_order(topology);
    let mut folders = String::new();
    for host in &hosts {
        let _ = writeln!(folders, "| `{}/` | {} |", host.folder(), place(topology, host));
    }
    let mut text = format!(
        "\
# The set-up

Made by `otproxy init`. Commands are run in this folder.

| here | goes to |
|---|---|
{folders}| `ca/` | nowhere: it stays with you. Anybody with `ca.key` can play your core and your edges: keep it off their hosts |
| `config.lua` | its lines into the game server's `config.lua` |
| `proxies.sql` | the game's database, where the login server reads the table `proxies` |
| `prometheus.yml` | `/etc/prometheus/` on the core's host, for dashboards and alerts: section \"Dashboards and alerts\" of docs/operations.md |
| `client/otproxy/` | the client's folder `mods`, as a whole: see step 3 |

"
    );
    text += match topology.core.mode {
        CoreMode::Dial => {
            "\
The core connects to the edges. It has no open port, may be behind NAT, and where it is stands in no edge's file.

"
        }
        CoreMode::Accept => {
            "\
The edges connect to the core: each edge's file has the core's address, and the core has one open port, for the edges.

"
        }
    };
    text += "\
## 1. Copy and start

Over ssh, as root: each host gets the program, its folder and its firewall, and is tried in the end. The first line shows each command that the
second one runs. What is in place is skipped, so run it again after a change, or if it stops. If the topology is a file of yours, and not
`topology.yaml` here, name it behind `deploy`.

```sh
otproxy deploy --dry-run
otproxy deploy
```

";
    text += match topology.core.mode {
        CoreMode::Dial if topology.core.address.is_none() && topology.core.ssh.is_none() => {
            "\
It must know where the core is: write `core: { ssh: root@HOST }` into the topology, or run `otproxy deploy --core --local core` on the core's host, where
no ssh is needed, and name the edges here with `--edge`.

"
        }
        _ => "",
    };
    text += "Or by hand. Any order works: the first host waits for the others.\n";
    for host in &hosts {
        let _ = write!(text, "\n{}:\n\n```sh\n{}```\n", title(host), commands(topology, host));
    }
    if Host::Core.target(topology, None).is_none() {
        let _ = write!(
            text,
            "\n`{UNKNOWN}` is the game server's host; where you are on it already, run what stands in quotes.\n"
        );
    }
    let pings: Vec<_> = topology.live().map(|edge| edge.public.as_str()).collect();
    let _ = write!(
        text,
        "
## 2. The firewalls

Each folder has an `nftables.conf`, best loaded before otproxy starts on that host. It replaces all rules there: read it, and its host's
README.md, before. `otproxy deploy` loads it with a way back: a host undoes it unless a second connection comes through.

## 3. The game server, the database, the clients

The lines of `config.lua` and `proxies.sql`, each in its place as the table says.

The folder `client/otproxy` goes into the `mods` of the client that you hand to your players, beside what is there: `mods/otproxy/otproxy.otmod`
and `mods/otproxy/otproxy.lua`. It is the same for OTCv8, OTAcademy, OTClient Redemption and their forks; where the client is packed, it goes into `mods` in
its data.zip. In `init.lua` it needs no line; the server's address stands there:

| client | in `init.lua` |
|---|---|
| OTCv8, OTAcademy | `Servers = {{ MyServer = \"127.0.0.1:{login}:1098\" }}`, with your protocol in place of 1098 |
| OTClient Redemption | `Servers_init = {{ [\"127.0.0.1\"] = {{ port = {login}, protocol = 1098, httpLogin = false }} }}`, likewise |

It is 127.0.0.1 and not an edge's name: this address makes the login go over links as well. If a web service does the login, its URL stands there,
and 127.0.0.1 is that service's world address.

## 4. Does it work?

`otproxy doctor -c FILE` on each host tries the real thing, and has a remedy for each thing that fails. On a host that is none of
these, as at home, `otproxy probe` sees all of it as players do:

```sh
otproxy probe {pings}
```

With `--core ADDRESS` it tries the core's host as well, which must not answer there.

## Later

Change the topology (the file that you gave, or `topology.yaml` here) and run `otproxy deploy TOPOLOGY --out .` again, which begins with
`otproxy init TOPOLOGY --out .`: that writes what has changed, and nothing else; keys stay, and so does what you have edited: the new text is then
beside it, in a file that ends in `.new`. By hand, copy the folders that it names, and run their `install.sh`.

- **A new edge:** add it to `edges`. The core takes it up with its new `core.yaml`, while it runs; tell the clients last{ahead}.
- **An edge that is given up, or was broken into:** set `revoked: true` on it. With its new `core.yaml` the core, while it runs,
  closes what that edge has open, and refuses it from then on.
- **Certificates:** whatever ends within {RENEW_DAYS} days is issued anew by the same command, for the same key, and taken up without a restart.
",
        login = topology.login.port,
        pings = pings.join(" "),
        ahead = ahead(topology),
    );
    text
}

/// Returns how clients hear of a new edge, as the end of a sentence.
fn ahead(topology: &Topology) -> String {
    match topology.spare_names().first() {
        Some(next) => format!(": they know its name ahead if that is {next}, and a DNS record is all that it takes"),
        None => String::new(),
    }
}

/// Returns `README.md` of one host.
pub(super) fn of_host(topology: &Topology, host: &Host<'_>) -> String {
    let (role, name, folder) = (host.role(), host.name(), host.folder());
    let unit = unit_name(host);
    let mut text = format!(
        "\
# {title}

Made by `otproxy init`. To be copied to {place}. Commands are run as root, there.

| here | goes to |
|---|---|
| `{role}.yaml`, `ca.pem`, `{name}.pem` | `/etc/otproxy/` |
| `{name}.key` | `/etc/otproxy/`, for the user `otproxy` alone |
| `{unit}` | `/etc/systemd/system/`; nowhere, if a package has brought it |
| `{DROP_IN}` | `/etc/systemd/system/{unit}.d/` |
| `nftables.conf` | `/etc/nftables.conf`, after a look at it |

1. The program: a package (`apt install ./otproxy_*.deb`), or a copy at `/usr/local/bin/otproxy.new`, which `install.sh` puts into the
   place of `otproxy` there, as one that runs cannot be written to.
2. The firewall (`apt install nftables`), before otproxy starts: of connections that stand when it is loaded it has not seen the
   beginning. It replaces all rules there are. Keep one ssh session open while you try it, and log in with a second one before you
   close it:

   ```sh
   nft -c -f {folder}/nftables.conf     # only checks
   install -m 755 {folder}/nftables.conf /etc/nftables.conf
   systemctl enable nftables
   systemctl restart nftables
   ```

   If the provider has a firewall of its own, put the same rules there too.
3. The files, and the start. `install.sh` does what the table says, but for the firewall:

   ```sh
   sh {folder}/install.sh
   systemctl status otproxy-{role}
   ```

4. Does it work?

   ```sh
   otproxy doctor -c /etc/otproxy/{role}.yaml
   ```

5. The copy of the key: `rm -r {folder}`.
",
        title = title(host),
        place = match host {
            // The address of the core is in no edge's folder, and in its own no more often than needed.
            Host::Core => "the game server's host".to_owned(),
            Host::Edge(_) => place(topology, host),
        },
    );
    let status = topology.status.as_ref().map(|status| status.port);
    let games = topology.forwarded_worlds().map(|world| world.port);
    let web = topology.web.as_ref().map(|web| web.port);
    let players: Vec<_> = [LINKS_PORT, LOGIN_PORT]
        .into_iter()
        .chain(status)
        .chain(games)
        .chain(web)
        .map(|port| port.to_string())
        .collect();
    let players = players.join(", ");
    text += &match (host, topology.core.mode) {
        (Host::Core, CoreMode::Dial) => "\nNo port is open here but ssh.\n".to_owned(),
        (Host::Core, CoreMode::Accept) => {
            format!("\nOpen to the edges: {}, the tunnel. Nothing else but ssh.\n", topology.tunnel_port)
        }
        (Host::Edge(_), CoreMode::Dial) => format!(
            "\nOpen to all: {players}, for players; {}, where the core connects and proves itself with its certificate.\n",
            topology.tunnel_port
        ),
        (Host::Edge(_), CoreMode::Accept) => format!("\nOpen to all: {players}, for players.\n"),
    };
    text
}

fn title(host: &Host<'_>) -> String {
    match host {
        Host::Core => "The core".to_owned(),
        Host::Edge(edge) => format!("The edge {}", edge.name),
    }
}

fn place(topology: &Topology, host: &Host<'_>) -> String {
    host.address(topology).map_or_else(|| "the game server's host".to_owned(), |address| format!("`{address}`"))
}

/// Returns the commands that copy the program and the folder from here, and start it.
fn commands(topology: &Topology, host: &Host<'_>) -> String {
    let (folder, role) = (host.folder(), host.role());
    let SshTarget { user, host, port } =
        host.target(topology, None).unwrap_or_else(|| SshTarget::of_host(UNKNOWN).or_user(ROOT));
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let copy_to = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.clone() };
    let at = |flag: char| port.map(|port| format!(" -{flag} {port}")).unwrap_or_default();
    format!(
        "\
scp{scp} \"$(command -v otproxy)\" '{user}{copy_to}:/usr/local/bin/otproxy.new'
scp{scp} -r {folder} '{user}{copy_to}:'
ssh{ssh} {user}{host} 'sh {folder}/install.sh && otproxy doctor -c /etc/otproxy/{role}.yaml'
",
        scp = at('P'),
        ssh = at('p'),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use otproxy_config::parse_topology;

    #[test]
    fn hosts_are_reached_as_the_topology_says() {
        let text = |core: &str| {
            let text = format!(
                "edges: [{{ name: waw1, address: '2001:db8::7' }}, {{ name: fra1, address: 198.51.100.9, ssh: fra }}]\n{core}\
                 game_servers: [{{ port: 7172, address: '127.0.0.1:7172' }}]\n"
            );
            whole(&parse_topology("t.yaml", &text).unwrap_or_else(|errors| panic!("{errors}")))
        };
        let said = text("core: { ssh: 'admin@core.example:2222' }\n");
        assert!(
            said.contains("\nscp -P 2222 -r core 'admin@core.example:'\nssh -p 2222 admin@core.example 'sh "),
            "{said}"
        );
        assert!(said.contains("\nscp -r edge-waw1 'root@[2001:db8::7]:'\nssh root@2001:db8::7 'sh "), "{said}");
        assert!(said.contains("\nscp -r edge-fra1 'fra:'\nssh fra 'sh ") && !said.contains(UNKNOWN), "{said}");
        assert!(text("core: { address: core.example }\n").contains("\nscp -r core 'root@core.example:'\n"));
        assert!(text("").contains("\nscp -r core 'root@CORE:'\n"));
    }
}
