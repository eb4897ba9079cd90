//! The questions of `otproxy init` on a terminal, where nothing is given.
//!
//! Each answer is put into the flags that it stands for, and these are read as ever, with what is not known yet filled in: so an
//! answer is checked by the checks of the topology, at once, and there is one way to a topology's text.

use std::io::{self, BufRead, Read, Write};

use super::{Edge, Game, Init};
use otproxy_config as config;
use otproxy_config::{CoreMode, GAME_PORT, GameServerProfile};
use otproxy_protocol::printable::printable_lines;

/// Bytes of an answer, its end included.
const MAX_ANSWER: usize = 1024;

/// Asks for a topology. `None` if the answers end, or the last one is no: then nothing is to be written.
///
/// # Errors
/// Fails if the terminal does.
pub(super) fn ask(input: impl BufRead, output: impl Write, place: &str) -> io::Result<Option<Init>> {
    let mut dialogue = Dialogue { input, output, draft: Init::default() };
    match dialogue.run(place) {
        Ok(is_wanted) => Ok(is_wanted.then_some(dialogue.draft)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            dialogue.say("")?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

struct Dialogue<R, W> {
    input: R,
    output: W,
    draft: Init,
}

/// The meaning of Enter alone.
enum Enter<'a> {
    /// Nothing: it is asked again.
    Nothing,
    /// This answer.
    Answer(&'a str),
    /// That there is none, in these words.
    None(&'a str),
}

/// A question, and the key of the topology that its answer is for.
struct Question<'a> {
    text: &'a str,
    key: &'a str,
    enter: Enter<'a>,
}

impl<R: BufRead, W: Write> Dialogue<R, W> {
    /// Asks all questions; returns whether the topology is wanted as it is then.
    fn run(&mut self, place: &str) -> io::Result<bool> {
        self.say(
            "This makes the files of all hosts, from a few answers. Enter alone takes what stands in brackets.\n\
             Ctrl-C ends it; nothing is written before the end.\n",
        )?;
        self.core()?;
        self.edges()?;
        self.worlds()?;
        let Ok(text) = self.draft.text(super::FROM_ANSWERS) else { return Ok(false) };
        self.say(&format!("\n{text}"))?;
        loop {
            let question = format!("Write this to {place}, and make the files?");
            match self.answer(&question, &Enter::Answer("yes"))?.as_deref() {
                Some("yes" | "y") => return Ok(true),
                Some("no" | "n") => return Ok(false),
                _ => self.say("  Write `yes` or `no`.")?,
            }
        }
    }

    /// Asks for the core's way: what an edge may be depends on it.
    fn core(&mut self) -> io::Result<()> {
        self.say(
            "The core runs beside the game server. It connects to the edges (`dial`: no open port, and it may be behind NAT), or\n\
             they connect to it (`accept`).",
        )?;
        let mode = loop {
            let answer = self.answer("The core's way", &Enter::Answer(CoreMode::Dial.as_str()))?.unwrap_or_default();
            match CoreMode::ALL.iter().find(|mode| mode.as_str() == answer) {
                Some(mode) => break *mode,
                None => self.complain(&of_mode(&answer))?,
            }
        };
        self.draft.core_mode = Some(mode);
        let (text, enter) = match mode {
            CoreMode::Dial => ("The core's host, for `otproxy deploy`", Enter::None("not told")),
            CoreMode::Accept => ("The core's host, where the edges connect", Enter::Nothing),
        };
        self.ask(&Question { text, key: "core.address", enter }, |draft, host| draft.core = host)?;
        Ok(())
    }

    fn edges(&mut self) -> io::Result<()> {
        self.say("\nEdges are the hosts that players connect to; have two or more, so that one can be lost.")?;
        for index in 0.. {
            let (number, key) = (index + 1, |of: &str| format!("edges[{index}].{of}"));
            let own_name = format!("edge{number}");
            let enter = if index == 0 { Enter::Nothing } else { Enter::None("no more") };
            let question = Question { text: &format!("Edge {number}: its address"), key: &key("address"), enter };
            let address = self.ask(&question, |draft, address| {
                let edge = address.map(|address| Edge { name: own_name.clone(), address, public: None });
                draft.edge.extend(edge);
            })?;
            let Some(address) = address else { break };
            let text = format!("Edge {number}: its name, for you and in its certificate");
            let question = Question { text: &text, key: &key("name"), enter: Enter::Answer(&own_name) };
            self.ask(&question, |draft, name| {
                if let (Some(edge), Some(name)) = (draft.edge.last_mut(), name) {
                    edge.name = name;
                }
            })?;
            let text = format!("Edge {number}: what clients are told, as in p{number}.example");
            let question = Question { text: &text, key: &key("public"), enter: Enter::None(&address) };
            self.ask(&question, |draft, public| {
                if let Some(edge) = draft.edge.last_mut() {
                    edge.public = public;
                }
            })?;
        }
        Ok(())
    }

    fn worlds(&mut self) -> io::Result<()> {
        self.say("\nThe game server decides how it is told players' addresses; docs/game-servers.md has each one's lines of config.lua.")?;
        let known: Vec<_> = GameServerProfile::ALL.iter().map(|known| known.as_str()).collect();
        let text = format!("The game server: {}", known.join(", "));
        let enter = Enter::Answer(GameServerProfile::Tfs14Otc.as_str());
        self.ask(&Question { text: &text, key: "game_server", enter }, |draft, server| draft.game_server = server)?;
        self.say("\nWorlds are its ports for games, as the core reaches them.")?;
        for index in 0.. {
            let (number, key) = (index + 1, |of: &str| format!("game_servers[{index}].{of}"));
            let first = GAME_PORT.to_string();
            let enter = if index == 0 { Enter::Answer(&first) } else { Enter::None("no more") };
            let text = format!("World {number}: its port, as clients ask for it");
            let port = self.ask(&Question { text: &text, key: &key("port"), enter }, |draft, port| {
                let game = port.map(|port| Game { address: format!("127.0.0.1:{GAME_PORT}"), port, name: None });
                draft.game.extend(game);
            })?;
            let Some(port) = port else { break };
            let text = format!("World {number}: its address and port");
            let question =
                Question { text: &text, key: &key("address"), enter: Enter::Answer(&format!("127.0.0.1:{port}")) };
            self.ask(&question, |draft, address| {
                if let (Some(game), Some(address)) = (draft.game.last_mut(), address) {
                    game.address = address;
                }
            })?;
            let question =
                Question { text: &format!("World {number}: its name"), key: &key("name"), enter: Enter::None("none") };
            self.ask(&question, |draft, name| {
                if let Some(game) = draft.game.last_mut() {
                    game.name = name;
                }
            })?;
        }
        Ok(())
    }

    /// Asks until an answer is one that the topology may have, and sets it; returns it, or `None` for none.
    fn ask(&mut self, question: &Question<'_>, set: impl Fn(&mut Init, Option<String>)) -> io::Result<Option<String>> {
        loop {
            let answer = self.answer(question.text, &question.enter)?;
            let mut draft = self.draft.clone();
            set(&mut draft, answer.clone());
            let wrong = draft.wrong(question.key);
            if wrong.is_empty() {
                self.draft = draft;
                return Ok(answer);
            }
            self.complain(&wrong)?;
        }
    }

    /// Asks until there is an answer; `None` where Enter alone means that there is none.
    fn answer(&mut self, question: &str, enter: &Enter<'_>) -> io::Result<Option<String>> {
        loop {
            let shown = match enter {
                Enter::Nothing => String::new(),
                Enter::Answer(text) | Enter::None(text) => format!(" [{text}]"),
            };
            write!(self.output, "{}: ", printable_lines(&format!("{question}{shown}")))?;
            self.output.flush()?;
            match (self.line()?, enter) {
                (None, _) => self.say("  That is too long.")?,
                (Some(line), _) if !line.is_empty() => return Ok(Some(line)),
                (_, Enter::Answer(text)) => return Ok(Some((*text).to_owned())),
                (_, Enter::None(_)) => return Ok(None),
                (_, Enter::Nothing) => self.say("  This is needed.")?,
            }
        }
    }

    /// Reads a line; `None` if it is too long.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut is_first = true;
        loop {
            let mut part = Vec::new();
            (&mut self.input).take(MAX_ANSWER as u64).read_until(b'\n', &mut part)?;
            match part.strip_suffix(b"\n") {
                Some(line) => return Ok(is_first.then(|| String::from_utf8_lossy(line).trim().to_owned())),
                // The answers have ended. What has no end was not meant.
                None if part.len() < MAX_ANSWER => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => is_first = false,
            }
        }
    }

    fn complain(&mut self, messages: &[String]) -> io::Result<()> {
        messages.iter().try_for_each(|message| self.say(&format!("  {message}")))
    }

    fn say(&mut self, lines: &str) -> io::Result<()> {
        writeln!(self.output, "{}", printable_lines(lines))
    }
}

impl Init {
    /// Returns what is wrong with the value of a key. What is not known yet is as in an example.
    fn wrong(&self, key: &str) -> Vec<String> {
        let mut whole = self.clone();
        if whole.edge.is_empty() {
            whole.edge.push(Edge { name: "waw1".to_owned(), address: "198.51.100.7".to_owned(), public: None });
        }
        if whole.game.is_empty() {
            let game = Game { port: GAME_PORT.to_string(), address: format!("127.0.0.1:{GAME_PORT}"), name: None };
            whole.game.push(game);
        }
        whole.text(super::FROM_ANSWERS).map_or_else(|error| vec![error.to_string()], |text| messages(&text, key))
    }
}

/// Returns what is wrong with a word for the core's way.
fn of_mode(word: &str) -> Vec<String> {
    messages(&format!("core: {{ mode: {} }}\n", super::quoted(word)), "core.mode")
}

/// Returns the messages about a key of a topology, or about the text as a whole.
fn messages(topology: &str, key: &str) -> Vec<String> {
    let Err(errors) = config::parse_topology("", topology) else { return Vec::new() };
    errors.iter().filter(|error| error.key == key || error.key.is_empty()).map(|error| error.message.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the flags that answers stand for, and what was said.
    fn talk(answers: &str) -> (Option<Init>, String) {
        let mut said = Vec::new();
        let asked = ask(answers.as_bytes(), &mut said, "here/topology.yaml").expect("a terminal");
        (asked, String::from_utf8(said).expect("UTF-8"))
    }

    fn text(init: &Init) -> String {
        init.text(super::super::FROM_ANSWERS).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn enter_is_enough_but_for_the_first_edge() {
        let (asked, said) = talk("\n\n198.51.100.7\n\n\n\n\n\n\n\n\n\n");
        assert_eq!(
            said,
            "This makes the files of all hosts, from a few answers. Enter alone takes what stands in brackets.\n\
             Ctrl-C ends it; nothing is written before the end.\n\n\
             The core runs beside the game server. It connects to the edges (`dial`: no open port, and it may be behind NAT), or\n\
             they connect to it (`accept`).\n\
             The core's way [dial]: The core's host, for `otproxy deploy` [not told]: \n\
             Edges are the hosts that players connect to; have two or more, so that one can be lost.\n\
             Edge 1: its address: Edge 1: its name, for you and in its certificate [edge1]: \
             Edge 1: what clients are told, as in p1.example [198.51.100.7]: Edge 2: its address [no more]: \n\
             The game server decides how it is told players' addresses; docs/game-servers.md has each one's lines of config.lua.\n\
             The game server: tfs14-otc, tfs16-otc, tfs-proxy, canary, canary-860, tvp, unpatched, custom [tfs14-otc]: \n\
             Worlds are its ports for games, as the core reaches them.\n\
             World 1: its port, as clients ask for it [7172]: World 1: its address and port [127.0.0.1:7172]: \
             World 1: its name [none]: World 2: its port, as clients ask for it [no more]: \n\
             # The topology, from your answers to `otproxy init`. From now on change it here.\n\
             edges:\n  - { name: \"edge1\", address: \"198.51.100.7\" }\n\
             core: { mode: dial }\n\
             game_server: \"tfs14-otc\"\n\
             game_servers:\n  - { port: \"7172\", address: \"127.0.0.1:7172\" }\n\n\
             Write this to here/topology.yaml, and make the files? [yes]: "
        );
        assert!(config::parse_topology("", &text(&asked.expect("yes"))).is_ok());
    }

    #[test]
    fn each_answer_has_its_place() {
        let answers = [
            "accept",
            "core.example",
            "198.51.100.7",
            "waw1",
            "p1.example",
            "2001:db8::9",
            "fra1",
            "",
            "",
            "canary",
            "7172",
            "10.0.0.2:7172",
            "Antica: # \"one\"",
            "7173",
            "",
            "",
            "",
            "y",
        ];
        let (asked, _) = talk(&(answers.join("\n") + "\n"));
        assert_eq!(
            text(&asked.expect("yes")),
            "# The topology, from your answers to `otproxy init`. From now on change it here.\n\
             edges:\n  - { name: \"waw1\", address: \"198.51.100.7\", public: \"p1.example\" }\n\
             \x20 - { name: \"fra1\", address: \"2001:db8::9\" }\n\
             core: { mode: accept, address: \"core.example\" }\n\
             game_server: \"canary\"\n\
             game_servers:\n  - { port: \"7172\", address: \"10.0.0.2:7172\", name: \"Antica: # \\\"one\\\"\" }\n\
             \x20 - { port: \"7173\", address: \"127.0.0.1:7173\" }\n"
        );
    }

    /// A wrong answer has the topology's own message about such a value, and the question comes again.
    #[test]
    fn a_wrong_answer_is_said_to_be_wrong_at_once() {
        let long = "x".repeat(3 * MAX_ANSWER);
        let answers = [
            ("dail", "  `dail` is not "),
            ("accept", "[dial]: "),
            ("", "  This is needed.\n"),
            ("core.example:7100", "has a port, and this is a host alone; write `core.example`\n"),
            ("core.example", ""),
            ("p1.example", "is a name, and the core's firewall lets in addresses; give the address here"),
            (&long, "  That is too long.\n"),
            ("198.51.100.7\u{1b}[D", "`198.51.100.7\\u{1b}[D` is not a host"),
            ("198.51.100.7", ""),
            ("core", "`core` is no edge's name"),
            ("waw1", ""),
            ("", ""),
            ("198.51.100.7", "`198.51.100.7` is already used by edges[0].address; each must be its own"),
            ("198.51.100.8", ""),
            ("waw1", "`waw1` is already used by edges[0].name"),
            ("fra1", ""),
            ("", ""),
            ("", ""),
            ("canry", "did you mean `canary`?"),
            ("", ""),
            ("0", "`0` is not a port; write a number from 1 to 65535"),
            ("", ""),
            ("127.0.0.1", "has no port; write it as"),
            ("", ""),
            ("\u{7f}", "cannot be a name; use at most"),
            ("", ""),
            ("7172", "`7172` is already used by game_servers[0].port"),
            ("", ""),
            ("maybe", "  Write `yes` or `no`.\n"),
            ("yes", ""),
        ];
        let all: String = answers.iter().map(|(answer, _)| format!("{answer}\n")).collect();
        let (asked, said) = talk(&all);
        let mut rest = said.as_str();
        for (answer, expected) in answers {
            let (_, behind) =
                rest.split_once(expected).unwrap_or_else(|| panic!("{answer}: no {expected:?} in:\n{rest}"));
            rest = behind;
        }
        let asked = asked.expect("yes");
        assert_eq!((asked.edge.len(), asked.game.len()), (2, 1));
        assert!(!said.contains('\u{1b}'));
    }

    #[test]
    fn an_end_before_the_end_and_a_no_write_nothing() {
        let whole = "\n\n198.51.100.7\n\n\n\n\n\n\n\n\n";
        for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            assert_eq!(talk(whole.get(..end).expect("a boundary")).0, None, "{end}");
        }
        assert!(talk(&format!("{whole}no\n")).0.is_none());
        // An answer that has no end was not given.
        assert!(talk(&format!("{whole}yes")).0.is_none());
        assert!(talk(&format!("{whole}yes\n")).0.is_some());
    }
}
